//! The life of a worker: load, work, drain.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use slipway_egress::AllowList;
use tokio::sync::watch;

use super::callback::Caller;
use super::callback::sign::Signer;
use super::worker::Worker;
use super::{Jobs, WorkerArgs, callback};
use crate::error::{LoadError, Reason};
use crate::run::{Signals, bind_admin, load_aside, run_to_end, start};
use crate::server::{App, handle_admin};

/// Runs `worker` to its end.
pub fn work(args: WorkerArgs) -> ExitCode {
    let serve = args.serve.clone();
    run_to_end(&serve, live(args))
}

fn wrong(message: String) -> LoadError {
    LoadError::permanent(Reason::LoadFailed, message)
}

async fn live(args: WorkerArgs) -> Result<(), LoadError> {
    let begun = Instant::now();
    let mut signals = Signals::new()?;
    let app = App::new(args.serve.clone()).map_err(|e| LoadError::permanent(Reason::LoadFailed, e))?;
    let jobs = Jobs::attach(&app)?.ok_or_else(|| wrong("a worker needs --queue-url (SLIPWAY_QUEUE_URL)".into()))?;
    let caller = caller(&args)?;
    let admin = bind_admin(app.args.admin_listen).await?;
    tracing::info!(admin = %admin.address(), pod = app.args.pod_name, revision = app.args.revision, "listening");
    let _admin = start(admin, &app, |app, request| async move { handle_admin(&app, request).await });
    tokio::select! {
        loaded = load_aside(&app) => {
            let model = app.models.insert(loaded?);
            app.metrics.loaded(&model.name, &model.version, &model.digest, &model.batching, begun.elapsed());
            tracing::info!(digest = model.digest, seconds = begun.elapsed().as_secs_f64(), "ready");
        }
        () = signals.any() => return Ok(()),
    }
    let (stop, stopped) = watch::channel(false);
    let consumer = consumer(&app.args.pod_name);
    let worker = Worker::new(Arc::clone(&app), Arc::clone(&jobs), args, consumer, stopped.clone());
    let calling = caller.map(|caller| tokio::spawn(callback::call_back(Arc::clone(&app), jobs, caller, stopped)));
    let working = tokio::spawn(async move { worker.run().await });
    signals.any().await;
    tracing::info!("draining");
    app.start_stopping();
    let _ = stop.send(true);
    // Both end by themselves within the drain.
    let _ = working.await;
    if let Some(calling) = calling {
        let _ = calling.await;
    }
    tracing::info!("drained");
    Ok(())
}

/// Unique for each start: a name that comes back would take over what its earlier life left behind.
fn consumer(pod: &str) -> String {
    let pod = if pod.is_empty() { "worker" } else { pod };
    format!("{pod}-{:08x}", rand::random::<u32>())
}

fn caller(args: &WorkerArgs) -> Result<Option<Caller>, LoadError> {
    let allowed = &args.serve.queue.callback_allow;
    if allowed.is_empty() {
        return Ok(None);
    }
    let key = args.callback_signing_key.as_ref().ok_or_else(|| {
        wrong("callbacks are allowed (--callback-allow), but there is no key to sign them with (SLIPWAY_CALLBACK_SIGNING_KEY)".into())
    })?;
    let signer = Signer::parse(key.reveal()).map_err(|e| wrong(format!("SLIPWAY_CALLBACK_SIGNING_KEY: {e}")))?;
    Caller::new(AllowList::new(allowed), signer, args.callbacks()).map(Some).map_err(wrong)
}
