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
use crate::error::{LoadError, Reason};
use crate::jobs::JobService;
use crate::models::Model;
use crate::samples::PayloadSampler;
use crate::server::{App, Listener, handle_admin, handle_api};
use crate::{load, termination};

/// Runs `serve` to its end.
pub fn serve(args: ServeArgs) -> ExitCode {
    let of = args.clone();
    run_to_end(&of, live(args))
}

/// Runs a life to its end, and tells why it failed if it does.
pub(crate) fn run_to_end(args: &ServeArgs, life: impl Future<Output = Result<(), LoadError>>) -> ExitCode {
    // Both HTTP clients use whatever provider the process installs; an error means that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads().io).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            runtime.spawn(near_timer());
            let result = runtime.block_on(life);
            runtime.shutdown_background();
            result
        }
        Err(e) => Err(LoadError::transient(Reason::LoadFailed, format!("cannot start threads: {e}"))),
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

/// A timer that is due soon, always. tokio wakes its driver, by a system call, for each new timer that is due before all others; without this one
/// the deadlines of requests, far away as they are, were the first, and each request paid for it once or twice.
async fn near_timer() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Time for an answer to reach its client after the request's own time.
const MARGIN: Duration = Duration::from_secs(5);

/// A listening port and how to end it.
pub(crate) struct Port {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Port {
    /// Completes when nobody listens any more although nobody said so. The process must end then: its probes would go on to say that it serves.
    async fn lost(&mut self) -> LoadError {
        let why = (&mut self.task).await.map_or_else(|e| e.to_string(), |()| "ended by itself".to_owned());
        LoadError::transient(
            Reason::LoadFailed,
            format!("the port of the API is lost, and the process ends with it: {why}"),
        )
    }
}

async fn live(args: ServeArgs) -> Result<(), LoadError> {
    let begun = Instant::now();
    let mut signals = Signals::new()?;
    let app = App::new(args).map_err(|e| LoadError::permanent(Reason::LoadFailed, e))?;
    JobService::attach(&app)?;
    let (admin, api) = (bind_admin(app.args.admin_listen).await?, bind_api(&app.args).await?);
    tracing::info!(
        api = %api.address(), admin = %admin.address(), pod = app.args.pod_name, revision = app.args.revision,
        model = app.args.model_name, threads = ?app.args.threads(), "listening"
    );
    if let Some(sampler) = PayloadSampler::start(&app.args, &app.metrics.samples)? {
        // The cell is new, so it takes it.
        let _ = app.sampler.set(sampler);
    }
    // The admin port lives until the process ends.
    let _admin = start(admin, &app, |app, request| async move { handle_admin(&app, request).await });
    let mut api = start(api, &app, handle_api);

    tokio::select! {
        loaded = load_aside(&app) => {
            let model = loaded?;
            app.caches.connect().await;
            prewarm::prewarm_caches(&app, &model).await;
            let model = app.models.insert(model);
            let took = begun.elapsed();
            if let Some(observer) = &model.observer {
                app.metrics.observe(observer);
            }
            app.metrics.loaded(&model.name, &model.version, &model.digest, &model.batching, took);
            tracing::info!(digest = model.digest, seconds = took.as_secs_f64(), "ready");
        }
        () = signals.any() => {
            tracing::info!("told to end while loading");
            return Ok(());
        }
    }
    tokio::select! {
        () = signals.any() => {}
        lost = api.lost() => return Err(lost),
    }
    drain(&app, api).await;
    if let Some(sampler) = app.sampler.get() {
        sampler.close().await;
    }
    Ok(())
}

/// Listens for the API.
async fn bind_api(args: &ServeArgs) -> Result<Listener, LoadError> {
    Listener::api(args.listen, args.max_connections).await.map_err(cannot_listen(args.listen))
}

/// Listens for probes and scrapes.
pub(crate) async fn bind_admin(address: SocketAddr) -> Result<Listener, LoadError> {
    Listener::admin(address).await.map_err(cannot_listen(address))
}

fn cannot_listen(address: SocketAddr) -> impl Fn(std::io::Error) -> LoadError {
    move |e| LoadError::transient(Reason::LoadFailed, format!("cannot listen on {address}: {e}"))
}

/// Either signal to end.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, LoadError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| LoadError::transient(Reason::LoadFailed, format!("cannot listen for signals: {e}")))
        };
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

pub(crate) fn start<H, F, B>(listener: Listener, app: &Arc<App>, handler: H) -> Port
where
    H: Fn(Arc<App>, http::Request<hyper::body::Incoming>) -> F + Clone + Send + Sync + 'static,
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
    Port { stop, task }
}

/// Loads on a thread of its own: hashing and building sessions block.
pub(crate) async fn load_aside(app: &Arc<App>) -> Result<Model, LoadError> {
    let lost = |what: String| LoadError::transient(Reason::LoadFailed, format!("the loading thread {what}"));
    let (done, answer) = oneshot::channel();
    let args = app.args.clone();
    let thread = std::thread::Builder::new().name("load".into());
    thread.spawn(move || drop(done.send(load::load(&args)))).map_err(|e| lost(format!("did not start: {e}")))?;
    answer.await.unwrap_or_else(|_| Err(lost("panicked".into())))
}

/// Serves on for as long as requests come; then no new connections, and an end of what is in flight.
async fn drain(app: &App, api: Port) {
    let quiet = Duration::from_secs(app.args.drain_delay_seconds);
    let longest = Duration::from_secs(app.args.drain_serve_seconds);
    tracing::info!(quiet_seconds = quiet.as_secs(), longest_seconds = longest.as_secs(), "draining");
    app.start_draining();
    if timeout(longest.max(quiet), app.lifetime.quiet(quiet)).await.is_err() {
        tracing::warn!(seconds = longest.as_secs(), "requests still come: no other pod took over in time");
    }
    app.start_stopping();
    let _ = api.stop.send(());
    let limit = app.args.drain_timeout_seconds.map_or_else(|| app.lifetime.remaining() + MARGIN, Duration::from_secs);
    match timeout(limit, api.task).await {
        Ok(_) => tracing::info!("drained"),
        Err(_) => tracing::warn!(timeout_seconds = limit.as_secs(), "some requests did not end in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_does_not_outlive_its_port() {
        let (stop, _stopped) = oneshot::channel();
        let mut port = Port { stop, task: tokio::spawn(async { panic!("out of luck") }) };
        let error = port.lost().await;
        assert!(!error.permanent && error.message.contains("out of luck"), "{error:?}");
    }
}
