//! The subcommand `serve`: bind, load, serve, drain.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_predict::prewarm;
use slipway_runtime_predict::samples::PayloadSampler;
use tokio::time::timeout;

use super::{
    PortHandle, bind_port, listen_for_shutdown, load_on_thread, run_to_end, start_api, start_jobs,
};
use crate::config::ServeArgs;
use crate::server::AppState;

/// Runs `serve` to its end.
pub fn serve_model(args: ServeArgs) -> ExitCode {
    let of = args.clone();
    run_to_end(&of, run_server(args))
}

/// Time for an answer to reach its client after the request's deadline.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

async fn run_server(args: ServeArgs) -> Result<(), LoadError> {
    let begun = Instant::now();
    let mut signals = listen_for_shutdown()?;
    let app =
        AppState::new(args).map_err(|e| LoadError::permanent(LoadErrorReason::LoadFailed, e))?;
    start_jobs(&app)?;
    let (admin, api) = (bind_port(app.args.admin_listen)?, bind_port(app.args.listen)?);
    tracing::info!(
        api = %api.address(), admin = %admin.address(), pod = app.args.pod_name, revision = app.args.revision,
        model = app.args.model_name, threads = ?app.args.thread_counts(), "listening"
    );
    if let Some(sampler) = PayloadSampler::start(
        &app.args.observe,
        app.args.sample_origin(),
        &app.predictor.metrics.samples,
    )? {
        // The cell is new, so setting it succeeds.
        let _ = app.predictor.sampler.set(sampler);
    }
    // The admin port lives until the process ends.
    tokio::spawn(admin.serve_admin(Arc::clone(&app)));
    let mut api = start_api(api, &app);

    tokio::select! {
        loaded = load_on_thread(&app) => {
            let model = loaded?;
            let predictor = &app.predictor;
            predictor.caches.connect().await;
            let args = &app.args;
            prewarm::prewarm_caches(predictor, &model, &args.modeldeployment, &args.cache).await;
            let model = predictor.models.insert(model);
            let took = begun.elapsed();
            if let Some(observer) = &model.observer {
                predictor.metrics.set_observer(observer);
            }
            predictor.metrics.record_model(&model.name, &model.version, &model.digest, &model.batching, took);
            tracing::info!(digest = model.digest, seconds = took.as_secs_f64(), "ready");
        }
        () = signals.recv() => {
            tracing::info!("told to end while loading");
            return Ok(());
        }
    }
    tokio::select! {
        () = signals.recv() => {}
        lost = api.until_lost() => return Err(lost),
    }
    drain_requests(&app, api).await;
    if let Some(sampler) = app.predictor.sampler.get() {
        sampler.close().await;
    }
    Ok(())
}

/// Serves on for as long as requests come; then no new connections, and an end of what is in
/// flight.
async fn drain_requests(app: &AppState, api: PortHandle) {
    let quiet = Duration::from_secs(app.args.drain_delay_seconds);
    let longest = Duration::from_secs(app.args.drain_serve_seconds);
    tracing::info!(
        quiet_seconds = quiet.as_secs(),
        longest_seconds = longest.as_secs(),
        "draining"
    );
    app.start_draining();
    if timeout(longest.max(quiet), app.activity.wait_until_quiet(quiet)).await.is_err() {
        tracing::warn!(
            seconds = longest.as_secs(),
            "requests still come: no other pod took over in time"
        );
    }
    app.start_stopping();
    let _ = api.stop.send(());
    let limit = app
        .args
        .drain_timeout_seconds
        .map_or_else(|| app.activity.remaining() + ANSWER_MARGIN, Duration::from_secs);
    match timeout(limit, api.task).await {
        Ok(_) => tracing::info!("drained"),
        Err(_) => {
            tracing::warn!(timeout_seconds = limit.as_secs(), "some requests did not end in time")
        }
    }
}
