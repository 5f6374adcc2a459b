//! The queue of a server or worker, with its metrics.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use slipway_chassis::backoff::{Backoff, Jitter};
use slipway_egress::AllowList;
use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_queue::queue::JobQueue as _;
use tokio::sync::watch;

use crate::args::QueueArgs;
use crate::broker::JobBroker;
use crate::metrics::JobMetrics;

/// Waits while the queue does not answer.
pub(crate) const OUTAGE_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(5),
    jitter: Jitter::Full,
};
/// How often the queue is asked how much waits.
const LAG_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct JobService {
    pub queue: JobBroker,
    /// Allowed destinations of callbacks.
    pub allow: AllowList,
    /// Largest size of a job in bytes.
    pub max_job_bytes: usize,
    pub metrics: JobMetrics,
}

impl JobService {
    /// Opens the queue if one is configured, and updates its metrics in the background; its default
    /// name is `own`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A permanent one when the URL is neither of Redis nor of NATS.
    pub fn start(
        args: &QueueArgs,
        own: &str,
        metrics: &JobMetrics,
    ) -> Result<Option<Arc<Self>>, LoadError> {
        let Some(url) = &args.queue_url else { return Ok(None) };
        let queue = JobBroker::new(url.expose_secret(), args.options(own)).map_err(|e| {
            LoadError::permanent(LoadErrorReason::LoadFailed, format!("--queue-url: {e}"))
        })?;
        metrics.init_series();
        let jobs = Arc::new(Self {
            queue,
            allow: AllowList::new(&args.callback_allow),
            max_job_bytes: args.max_job_bytes,
            metrics: metrics.clone(),
        });
        let ours = Arc::clone(&jobs);
        tokio::spawn(async move { ours.watch_lag().await });
        Ok(Some(jobs))
    }

    async fn watch_lag(&self) {
        loop {
            let lag = self.queue.lag().await;
            if let Err(error) = &lag {
                tracing::debug!(%error, "no lag");
            }
            self.metrics.set_lag(lag.as_ref().ok());
            tokio::time::sleep(LAG_INTERVAL).await;
        }
    }
}

pub(crate) fn is_stopping(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow()
}

/// Waits until the time has passed or `stop` is set.
pub(crate) async fn sleep_or_stop(stop: &watch::Receiver<bool>, time: Duration) {
    let mut stop = stop.clone();
    let _ = tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await;
}
