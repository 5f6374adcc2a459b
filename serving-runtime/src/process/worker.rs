//! The subcommand `worker`: load, work, drain.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use secrecy::ExposeSecret as _;
use slipway_contracts::environment::{CALLBACK_SIGNING_KEY, QUEUE_URL};
use slipway_egress::AllowList;
use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_jobs::callback::sign::CallbackSigner;
use slipway_runtime_jobs::callback::{self, CallbackSender};
use slipway_runtime_jobs::worker::JobWorker;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::{bind_port, listen_for_shutdown, load_on_thread, run_to_end, start_jobs};
use crate::config::WorkerCommand;
use crate::server::AppState;

/// Runs `worker` to its end.
pub fn run_worker(args: WorkerCommand) -> ExitCode {
    let serve = args.serve.clone();
    run_to_end(&serve, run_lifecycle(args))
}

fn permanent_error(message: String) -> LoadError {
    LoadError::permanent(LoadErrorReason::LoadFailed, message)
}

async fn run_lifecycle(args: WorkerCommand) -> Result<(), LoadError> {
    let begun = Instant::now();
    let mut signals = listen_for_shutdown()?;
    let app = AppState::new(args.serve.clone())
        .map_err(|e| LoadError::permanent(LoadErrorReason::LoadFailed, e))?;
    let jobs = start_jobs(&app)?
        .ok_or_else(|| permanent_error(format!("a worker needs --queue-url ({QUEUE_URL})")))?;
    let caller = build_callback_sender(&args)?;
    let admin = bind_port(app.args.admin_listen)?;
    tracing::info!(admin = %admin.address(), pod = app.args.pod_name, revision = app.args.revision, "listening");
    tokio::spawn(admin.serve_admin(Arc::clone(&app)));
    tokio::select! {
        loaded = load_on_thread(&app) => {
            let model = app.predictor.models.insert(loaded?);
            app.predictor.metrics.record_model(&model.name, &model.version, &model.digest, &model.batching, begun.elapsed());
            tracing::info!(digest = model.digest, seconds = begun.elapsed().as_secs_f64(), "ready");
        }
        () = signals.recv() => return Ok(()),
    }
    let (stop, stopped) = watch::channel(false);
    let consumer = consumer_name(&app.args.pod_name);
    let predictor = Arc::clone(&app.predictor);
    let worker =
        JobWorker::new(predictor, Arc::clone(&jobs), args.worker, consumer, stopped.clone());
    let mut tasks = JoinSet::new();
    if let Some(caller) = caller {
        tasks.spawn(callback::send_due_callbacks(jobs, caller, stopped));
    }
    tasks.spawn(async move { worker.run().await });
    wait_for_shutdown(&mut tasks, signals.recv()).await?;
    tracing::info!("draining");
    app.start_stopping();
    let _ = stop.send(true);
    // All tasks end by themselves within the drain time.
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(lost_task_error)?;
    }
    tracing::info!("drained");
    Ok(())
}

fn lost_task_error(e: JoinError) -> LoadError {
    LoadError::transient(
        LoadErrorReason::LoadFailed,
        format!("a task of the worker is lost, and the process ends with it: {e}"),
    )
}

/// Waits for a signal to end. If a task ends before, the process must end too: otherwise it would
/// be live and ready without taking jobs or sending callbacks, which no check would detect.
async fn wait_for_shutdown(
    tasks: &mut JoinSet<()>,
    told: impl Future<Output = ()>,
) -> Result<(), LoadError> {
    tokio::select! {
        () = told => Ok(()),
        Some(ended) = tasks.join_next() => {
            ended.map_err(lost_task_error)?;
            Err(LoadError::transient(LoadErrorReason::LoadFailed, "a task of the worker ended by itself"))
        }
    }
}

/// A name that is unique for each start: with a repeated name, the worker would take over the
/// deliveries of its previous run.
fn consumer_name(pod: &str) -> String {
    let pod = if pod.is_empty() { "worker" } else { pod };
    format!("{pod}-{:08x}", rand::random::<u32>())
}

fn build_callback_sender(args: &WorkerCommand) -> Result<Option<CallbackSender>, LoadError> {
    let allowed = &args.serve.queue.callback_allow;
    if allowed.is_empty() {
        return Ok(None);
    }
    let key = args.worker.callback_signing_key.as_ref().ok_or_else(|| {
        permanent_error(format!("callbacks are allowed (--callback-allow), but there is no key to sign them with ({CALLBACK_SIGNING_KEY})"))
    })?;
    let signer = CallbackSigner::parse(key.expose_secret())
        .map_err(|e| permanent_error(format!("{CALLBACK_SIGNING_KEY}: {e}")))?;
    CallbackSender::new(
        AllowList::new(allowed),
        signer,
        args.worker.callback_options(&args.serve.queue),
    )
    .map(Some)
    .map_err(permanent_error)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_worker_does_not_outlive_its_tasks() {
        let mut tasks = JoinSet::new();
        tasks.spawn(pending());
        assert!(wait_for_shutdown(&mut tasks, ready(())).await.is_ok());
        tasks.spawn(async { panic!("out of luck") });
        let error = wait_for_shutdown(&mut tasks, pending()).await.unwrap_err();
        assert!(!error.permanent && error.message.contains("out of luck"), "{error:?}");
        tasks.spawn(ready(()));
        assert!(
            wait_for_shutdown(&mut tasks, pending())
                .await
                .unwrap_err()
                .message
                .contains("by itself")
        );
    }
}
