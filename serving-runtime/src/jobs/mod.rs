//! Asynchronous predictions: jobs that wait in a queue, workers that run them in batches, results
//! that can be read and are called back.
//!
//! `job` is the format, `queue` what any queue must do, `redis` and `nats` are the ones that there
//! are, `worker` takes jobs through [`predict`](crate::predict::make_prediction), `callback` tells
//! the results. What is promised is in docs/queue.md.

mod args;
pub mod backoff;
mod broker;
pub mod callback;
pub mod job;
pub mod metrics;
pub mod nats;
mod process;
pub mod queue;
pub mod redis;
pub mod submit;
pub mod view;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use slipway_egress::AllowList;
use tokio::sync::watch;

pub use self::args::{QueueArgs, SecretText, WorkerArgs};
pub use self::broker::JobBroker;
pub use self::process::run_worker;
use self::queue::JobQueue as _;
use crate::config::ServeArgs;
use crate::error::{LoadError, LoadErrorReason};
use crate::server::AppState;

/// How often the queue is asked how much waits.
const LAG_INTERVAL: Duration = Duration::from_secs(2);

/// The queue of a server or worker.
#[derive(Debug)]
pub struct JobService {
    /// The queue.
    pub queue: JobBroker,
    /// Where callbacks may go.
    pub allow: AllowList,
}

impl JobService {
    /// The queue that the options name, if they name one. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A permanent one when the URL is none of Redis or NATS.
    pub fn open(args: &ServeArgs) -> Result<Option<Self>, LoadError> {
        let Some(url) = &args.queue.queue_url else { return Ok(None) };
        let queue = JobBroker::new(url.reveal(), args.queue.options(args));
        let queue = queue.map_err(|e| {
            LoadError::permanent(LoadErrorReason::LoadFailed, format!("--queue-url: {e}"))
        })?;
        Ok(Some(Self { queue, allow: AllowList::new(&args.queue.callback_allow) }))
    }

    /// Opens the queue of an app, and keeps its metrics fresh.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn attach(app: &Arc<AppState>) -> Result<Option<Arc<Self>>, LoadError> {
        let Some(jobs) = Self::open(&app.args)? else { return Ok(None) };
        let jobs = Arc::new(jobs);
        app.metrics.jobs.init_series();
        let _ = app.jobs.set(Arc::clone(&jobs));
        let (app, ours) = (Arc::clone(app), Arc::clone(&jobs));
        tokio::spawn(async move {
            loop {
                let lag = ours.queue.lag().await;
                if let Err(error) = &lag {
                    tracing::debug!(%error, "no lag");
                }
                app.metrics.jobs.set_lag(lag.as_ref().ok());
                tokio::time::sleep(LAG_INTERVAL).await;
            }
        });
        Ok(Some(jobs))
    }
}

/// Whether it is time to stop.
fn is_stopping(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow()
}

/// Waits, or not any longer when it is time to stop.
async fn sleep_or_stop(stop: &watch::Receiver<bool>, time: Duration) {
    let mut stop = stop.clone();
    let _ = tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await;
}
