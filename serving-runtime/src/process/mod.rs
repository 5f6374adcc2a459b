//! The subcommands `serve`, `worker` and `fetch`, and the code that they share.

mod fetch;
mod serve;
mod termination;
mod worker;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::signals::ShutdownSignal;
use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_jobs::service::JobService;
use slipway_runtime_predict::load;
use slipway_runtime_predict::models::LoadedModel;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::fetch::run_fetch;
pub use self::serve::serve_model;
pub use self::worker::run_worker;
use crate::config::ServeArgs;
use crate::server::{AppState, BoundListener};

/// Runs a subcommand to its end, and reports the reason if it fails.
fn run_to_end(args: &ServeArgs, life: impl Future<Output = Result<(), LoadError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.thread_counts().io)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            runtime.spawn(keep_timer_near());
            let result = runtime.block_on(life);
            runtime.shutdown_background();
            result
        }
        Err(e) => Err(LoadError::transient(
            LoadErrorReason::LoadFailed,
            format!("cannot start threads: {e}"),
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = ?error.reason, permanent = error.permanent, message = error.message, "cannot serve");
            termination::write_error(&args.termination_log, &error);
            ExitCode::FAILURE
        }
    }
}

/// Keeps a timer that is always due soon. tokio wakes its driver by a system call for each new
/// timer that is due before all others. Without this timer, the distant deadlines of requests would
/// be the earliest, and each request would pay for one or two such calls.
async fn keep_timer_near() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Opens the queue of an app, if it has one.
fn start_jobs(app: &AppState) -> Result<Option<Arc<JobService>>, LoadError> {
    let jobs = JobService::start(&app.args.queue, app.args.default_queue_name(), &app.job_metrics)?;
    if let Some(jobs) = &jobs {
        // The cell is new, so setting it succeeds.
        let _ = app.jobs.set(Arc::clone(jobs));
    }
    Ok(jobs)
}

/// A listening port, and the channel that stops it.
struct PortHandle {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PortHandle {
    /// Completes when the port stops listening without having been stopped. The process must end
    /// then: its probes would continue to report that it serves.
    async fn until_lost(&mut self) -> LoadError {
        let why = (&mut self.task)
            .await
            .map_or_else(|e| e.to_string(), |()| "ended by itself".to_owned());
        LoadError::transient(
            LoadErrorReason::LoadFailed,
            format!("the port of the API is lost, and the process ends with it: {why}"),
        )
    }
}

fn bind_port(address: SocketAddr) -> Result<BoundListener, LoadError> {
    BoundListener::bind(address).map_err(|e| {
        LoadError::transient(
            LoadErrorReason::LoadFailed,
            format!("cannot listen on {address}: {e}"),
        )
    })
}

fn listen_for_shutdown() -> Result<ShutdownSignal, LoadError> {
    ShutdownSignal::new().map_err(|e| {
        LoadError::transient(LoadErrorReason::LoadFailed, format!("cannot listen for signals: {e}"))
    })
}

/// Serves the API until the handle says otherwise.
fn start_api(listener: BoundListener, app: &Arc<AppState>) -> PortHandle {
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(listener.serve_api(Arc::clone(app), async {
        // Dropping the sender must not stop the port; only a message does.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    PortHandle { stop, task }
}

/// Loads the model on a separate thread: hashing and building sessions block.
async fn load_on_thread(app: &Arc<AppState>) -> Result<LoadedModel, LoadError> {
    let lost = |what: String| {
        LoadError::transient(LoadErrorReason::LoadFailed, format!("the loading thread {what}"))
    };
    let (done, answer) = oneshot::channel();
    let options = app.args.load_options();
    let thread = std::thread::Builder::new().name("load".into());
    thread
        .spawn(move || drop(done.send(load::load_model(&options))))
        .map_err(|e| lost(format!("did not start: {e}")))?;
    answer.await.unwrap_or_else(|_| Err(lost("panicked".into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_does_not_outlive_its_port() {
        let (stop, _stopped) = oneshot::channel();
        let mut port = PortHandle { stop, task: tokio::spawn(async { panic!("out of luck") }) };
        let error = port.until_lost().await;
        assert!(!error.permanent && error.message.contains("out of luck"), "{error:?}");
    }
}
