//! The life of the process: bind, load, serve, drain.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cache::prewarm;
use crate::config::ServeArgs;
use crate::error::{LoadError, LoadErrorReason};
use crate::jobs::JobService;
use crate::models::LoadedModel;
use crate::samples::PayloadSampler;
use crate::server::{AppState, BoundListener, handle_admin_request, handle_api};
use crate::{load, termination};

/// Runs `serve` to its end.
pub fn serve_model(args: ServeArgs) -> ExitCode {
    let of = args.clone();
    run_to_end(&of, run_server(args))
}

/// Runs a life to its end, and tells why it failed if it does.
pub(crate) fn run_to_end(
    args: &ServeArgs,
    life: impl Future<Output = Result<(), LoadError>>,
) -> ExitCode {
    // Both HTTP clients use whatever provider the process installs; an error means that one is
    // installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
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

/// A timer that is due soon, always. tokio wakes its driver, by a system call, for each new timer
/// that is due before all others; without this one the deadlines of requests, far away as they are,
/// were the first, and each request paid for it once or twice.
async fn keep_timer_near() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Time for an answer to reach its client after the request's own time.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// A listening port and how to end it.
pub(crate) struct PortHandle {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PortHandle {
    /// Completes when nobody listens any more although nobody said so. The process must end then:
    /// its probes would go on to say that it serves.
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

async fn run_server(args: ServeArgs) -> Result<(), LoadError> {
    let begun = Instant::now();
    let mut signals = TerminationSignals::new()?;
    let app =
        AppState::new(args).map_err(|e| LoadError::permanent(LoadErrorReason::LoadFailed, e))?;
    JobService::attach(&app)?;
    let (admin, api) = (bind_admin(app.args.admin_listen).await?, bind_api(&app.args).await?);
    tracing::info!(
        api = %api.address(), admin = %admin.address(), pod = app.args.pod_name, revision = app.args.revision,
        model = app.args.model_name, threads = ?app.args.thread_counts(), "listening"
    );
    if let Some(sampler) = PayloadSampler::start(&app.args, &app.metrics.samples)? {
        // The cell is new, so it takes it.
        let _ = app.sampler.set(sampler);
    }
    // The admin port lives until the process ends.
    let _admin =
        start_port(
            admin,
            &app,
            |app, request| async move { handle_admin_request(&app, request).await },
        );
    let mut api = start_port(api, &app, handle_api);

    tokio::select! {
        loaded = load_on_thread(&app) => {
            let model = loaded?;
            app.caches.connect().await;
            prewarm::prewarm_caches(&app, &model).await;
            let model = app.models.insert(model);
            let took = begun.elapsed();
            if let Some(observer) = &model.observer {
                app.metrics.set_observer(observer);
            }
            app.metrics.record_model(&model.name, &model.version, &model.digest, &model.batching, took);
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
    if let Some(sampler) = app.sampler.get() {
        sampler.close().await;
    }
    Ok(())
}

/// Listens for the API.
async fn bind_api(args: &ServeArgs) -> Result<BoundListener, LoadError> {
    BoundListener::bind_api(args.listen, args.max_connections)
        .await
        .map_err(listen_error(args.listen))
}

/// Listens for probes and scrapes.
pub(crate) async fn bind_admin(address: SocketAddr) -> Result<BoundListener, LoadError> {
    BoundListener::bind_admin(address).await.map_err(listen_error(address))
}

fn listen_error(address: SocketAddr) -> impl Fn(std::io::Error) -> LoadError {
    move |e| {
        LoadError::transient(
            LoadErrorReason::LoadFailed,
            format!("cannot listen on {address}: {e}"),
        )
    }
}

/// Either signal to end.
pub(crate) struct TerminationSignals {
    term: Signal,
    int: Signal,
}

impl TerminationSignals {
    pub(crate) fn new() -> Result<Self, LoadError> {
        let listen = |kind| {
            signal(kind).map_err(|e| {
                LoadError::transient(
                    LoadErrorReason::LoadFailed,
                    format!("cannot listen for signals: {e}"),
                )
            })
        };
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

pub(crate) fn start_port<H, F, B>(
    listener: BoundListener,
    app: &Arc<AppState>,
    handler: H,
) -> PortHandle
where
    H: Fn(Arc<AppState>, http::Request<hyper::body::Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = http::Response<B>> + Send + 'static,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static,
{
    let (stop, stopped) = oneshot::channel();
    let app = Arc::clone(app);
    let task = tokio::spawn(listener.serve(app, handler, async {
        // Dropping the sender must not stop the port; only a message does.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    PortHandle { stop, task }
}

/// Loads on a thread of its own: hashing and building sessions block.
pub(crate) async fn load_on_thread(app: &Arc<AppState>) -> Result<LoadedModel, LoadError> {
    let lost = |what: String| {
        LoadError::transient(LoadErrorReason::LoadFailed, format!("the loading thread {what}"))
    };
    let (done, answer) = oneshot::channel();
    let args = app.args.clone();
    let thread = std::thread::Builder::new().name("load".into());
    thread
        .spawn(move || drop(done.send(load::load_model(&args))))
        .map_err(|e| lost(format!("did not start: {e}")))?;
    answer.await.unwrap_or_else(|_| Err(lost("panicked".into())))
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
