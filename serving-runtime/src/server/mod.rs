//! HTTP: the inference API on one port, probes and metrics on another.

mod admin;
mod api;
mod body;
mod call;
mod compress;
mod features;
mod grpc;
mod health;
mod infer;
mod jobs;
mod lifetime;
mod listen;
mod repository;
mod statistics;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::watch;

pub use self::admin::handle as handle_admin;
use self::lifetime::Lifetime;
pub use self::listen::Listener;
use crate::cache::RuntimeCaches;
use crate::config::ServeArgs;
use crate::error::ApiError;
use crate::jobs::JobService;
use crate::keys::DeploymentKeys;
use crate::metrics::Metrics;
use crate::models::{Model, Models};
use crate::repository::{Entry, Repository};

/// What every answer by REST is.
pub type Answer = Response<Full<Bytes>>;

/// What an answer on the port of the API is: by REST or by gRPC.
pub type ApiAnswer = Response<Either<Full<Bytes>, tonic::body::Body>>;

/// What we call ourselves.
const NAME: &str = "slipway-runtime";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The extensions of the protocol that we have.
const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "model_repository", "statistics", "parameters"];
/// Tells the gateway what was predicted, for the prediction id.
const PREDICTION: &str = "x-slipway-prediction";
const PREDICTION_HEADER: HeaderName = HeaderName::from_static(PREDICTION);
/// Requests from here on are parsed off the HTTP threads, where they would hold up everybody else.
const LARGE: usize = 128 << 10;

/// Reads what is large aside, so that it does not hold up the other requests of its thread.
async fn aside<T: Send + 'static>(read: impl FnOnce() -> Result<T, ApiError> + Send + 'static) -> Result<T, ApiError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|e| ApiError::Internal(format!("reading the request failed: {e}")))?
}

/// How far the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Loading or serving.
    Serving,
    /// Told to end, and serving on for as long as it is asked: it may be the only pod until its replacement is ready. It stays ready, so that the
    /// EndpointSlice says that it serves while it terminates.
    Draining,
    /// What is in flight ends; streams that would not end by themselves are ended.
    Stopping,
}

/// What all connections share.
#[derive(Debug)]
pub struct App {
    /// The options.
    pub args: ServeArgs,
    /// The metrics.
    pub metrics: Metrics,
    /// Takes samples, when they are asked for.
    pub sampler: std::sync::OnceLock<crate::samples::PayloadSampler>,
    /// The models, each once it is loaded and warm.
    pub models: Models,
    /// Further models that can be loaded.
    pub repository: Repository,
    /// The caches.
    pub caches: RuntimeCaches,
    /// The queue of jobs, if there is one.
    pub jobs: OnceLock<Arc<JobService>>,
    /// Until when this process is needed.
    pub lifetime: Lifetime,
    /// The keys of the namespace.
    pub keys: Arc<DeploymentKeys>,
    phase: watch::Sender<Phase>,
}

impl App {
    /// The state of a server that has not loaded its model yet.
    ///
    /// # Errors
    /// When an option makes no sense.
    pub fn new(args: ServeArgs) -> Result<Arc<Self>, String> {
        let metrics = Metrics::new(&args.modeldeployment, &args.revision);
        let models = Models::new(&args.model_name);
        let repository = Repository::new(args.model_repository.clone(), args.max_models_bytes);
        let name = format!("{}/{}", args.namespace, args.modeldeployment);
        let keys = Arc::new(DeploymentKeys::new(args.keys_directory.clone(), &name, &args.uid, &args.revision));
        let caches = RuntimeCaches::new(&args.cache, &name, &keys, &metrics.cache)?;
        let (sampler, jobs, phase) = (OnceLock::new(), OnceLock::new(), watch::Sender::new(Phase::Serving));
        let lifetime = Lifetime::default();
        Ok(Arc::new(Self { args, metrics, sampler, models, repository, caches, jobs, lifetime, keys, phase }))
    }

    /// From here on the server asks its clients to connect elsewhere.
    pub fn start_draining(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// From here on the server is not ready, and streams end.
    pub fn start_stopping(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Whether the server shuts down.
    pub fn draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    fn is_stopping(&self) -> bool {
        *self.phase.borrow() == Phase::Stopping
    }

    fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Completes when streams must end.
    fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut phases = self.phases();
        async move {
            // An error means that the process is gone.
            let _ = phases.wait_for(|phase| *phase == Phase::Stopping).await;
        }
    }

    /// The model for a request; one of the repository that had to make room comes back.
    ///
    /// # Errors
    /// As [`Models::get`], and whatever keeps it from coming back.
    pub async fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, ApiError> {
        match self.models.get(name, version) {
            Err(error @ ApiError::NotFound(_)) => match self.repository.recall(self, name, version).await? {
                true => self.models.get(name, version),
                false => Err(error),
            },
            found => found,
        }
    }

    /// Whether a model is ready.
    ///
    /// # Errors
    /// `NotFound` when there is no such model: not ready and not there are two answers.
    fn model_ready(&self, name: &str, version: Option<&str>) -> Result<bool, ApiError> {
        match self.models.get(name, version) {
            Err(error @ ApiError::NotFound(_)) => Err(error),
            found => Ok(found.is_ok() && self.not_ready().is_none()),
        }
    }

    /// The models whose statistics are asked for: all, or all versions of one, or one.
    ///
    /// # Errors
    /// As [`Models::get`].
    fn statistics(&self, name: Option<&str>, version: Option<&str>) -> Result<Vec<Arc<Model>>, ApiError> {
        let Some(name) = name else { return Ok(self.models.all()) };
        self.models.get(name, version)?;
        let mut models = self.models.all();
        models.retain(|model| model.name == name && version.is_none_or(|v| v == model.version));
        Ok(models)
    }

    /// The index of the repository.
    ///
    /// # Errors
    /// `Internal` when the thread that reads it is lost.
    async fn index(self: &Arc<Self>, ready: bool) -> Result<Vec<Entry>, ApiError> {
        let app = Arc::clone(self);
        let listed = tokio::task::spawn_blocking(move || app.repository.index(&app)).await;
        let mut entries = listed.map_err(|e| ApiError::Internal(format!("reading the repository failed: {e}")))?;
        entries.retain(|entry| !ready || entry.state == "READY");
        Ok(entries)
    }

    /// Why the server is not ready, if it is not.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.is_stopping() {
            Some("shutting down")
        } else if self.models.own().is_none() {
            Some("the model is loading")
        } else {
            None
        }
    }
}

/// Answers one request on the port of the API. gRPC and REST share it: the content type tells them apart.
pub async fn handle_api(app: Arc<App>, request: Request<Incoming>) -> ApiAnswer {
    app.lifetime.note_request();
    if request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers()) {
        return grpc::handle(&app, request).await.map(Either::Right);
    }
    api::handle(&app, request).await.map(Either::Left)
}

fn bytes_answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
    // Our own values always serialize; an empty body would still carry the status.
    bytes_answer(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

fn error_answer(error: &ApiError) -> Answer {
    let mut answer = json_answer(error.status(), &serde_json::json!({"error": error.to_string()}));
    if let Some(seconds) = error.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Asks an HTTP/1 client not to use this connection again. (HTTP/2 has its own way, which the listener uses.)
fn ask_to_close(answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
