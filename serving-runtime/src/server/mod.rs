//! HTTP: the inference API on one port, probes and metrics on another.

mod activity;
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

use self::activity::RequestActivity;
pub use self::admin::handle_admin_request;
pub use self::listen::BoundListener;
use crate::cache::RuntimeCaches;
use crate::config::ServeArgs;
use crate::error::ApiError;
use crate::jobs::JobService;
use crate::keys::DeploymentKeys;
use crate::metrics::RuntimeMetrics;
use crate::models::{LoadedModel, ModelRegistry};
use crate::repository::{IndexEntry, ModelRepository};

/// What every answer by REST is.
pub type FullResponse = Response<Full<Bytes>>;

/// What an answer on the port of the API is: by REST or by gRPC.
pub type ApiResponse = Response<Either<Full<Bytes>, tonic::body::Body>>;

/// What we call ourselves.
const SERVER_NAME: &str = "slipway-runtime";
const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The extensions of the protocol that we have.
const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "model_repository", "statistics", "parameters"];
/// Tells the gateway what was predicted, for the prediction id.
const PREDICTION_KEY: &str = "x-slipway-prediction";
const PREDICTION_HEADER: HeaderName = HeaderName::from_static(PREDICTION_KEY);
/// Requests from here on are parsed off the HTTP threads, where they would hold up everybody else.
const OFFLOAD_BYTES: usize = 128 << 10;

/// Reads what is large aside, so that it does not hold up the other requests of its thread.
async fn parse_off_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|e| ApiError::Internal(format!("reading the request failed: {e}")))?
}

/// How far the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownPhase {
    /// Loading or serving.
    Serving,
    /// Told to end, and serving on for as long as it is asked: it may be the only pod until its
    /// replacement is ready. It stays ready, so that the EndpointSlice says that it serves while it
    /// terminates.
    Draining,
    /// What is in flight ends; streams that would not end by themselves are ended.
    Stopping,
}

/// What all connections share.
#[derive(Debug)]
pub struct AppState {
    /// The options.
    pub args: ServeArgs,
    /// The metrics.
    pub metrics: RuntimeMetrics,
    /// Takes samples, when they are asked for.
    pub sampler: std::sync::OnceLock<crate::samples::PayloadSampler>,
    /// The models, each once it is loaded and warm.
    pub models: ModelRegistry,
    /// Further models that can be loaded.
    pub repository: ModelRepository,
    /// The caches.
    pub caches: RuntimeCaches,
    /// The queue of jobs, if there is one.
    pub jobs: OnceLock<Arc<JobService>>,
    /// Until when this process is needed.
    pub activity: RequestActivity,
    /// The keys of the namespace.
    pub keys: Arc<DeploymentKeys>,
    phase: watch::Sender<ShutdownPhase>,
}

impl AppState {
    /// The state of a server that has not loaded its model yet.
    ///
    /// # Errors
    /// When an option makes no sense.
    pub fn new(args: ServeArgs) -> Result<Arc<Self>, String> {
        let metrics = RuntimeMetrics::new(&args.modeldeployment, &args.revision);
        let models = ModelRegistry::new(&args.model_name);
        let repository = ModelRepository::new(args.model_repository.clone(), args.max_models_bytes);
        let name = format!("{}/{}", args.namespace, args.modeldeployment);
        let keys = Arc::new(DeploymentKeys::new(
            args.keys_directory.clone(),
            &name,
            &args.uid,
            &args.revision,
        ));
        let caches = RuntimeCaches::new(&args.cache, &name, &keys, &metrics.cache)?;
        let (sampler, jobs, phase) =
            (OnceLock::new(), OnceLock::new(), watch::Sender::new(ShutdownPhase::Serving));
        let lifetime = RequestActivity::default();
        Ok(Arc::new(Self {
            args,
            metrics,
            sampler,
            models,
            repository,
            caches,
            jobs,
            activity: lifetime,
            keys,
            phase,
        }))
    }

    /// From here on the server asks its clients to connect elsewhere.
    pub fn start_draining(&self) {
        self.phase.send_replace(ShutdownPhase::Draining);
    }

    /// From here on the server is not ready, and streams end.
    pub fn start_stopping(&self) {
        self.phase.send_replace(ShutdownPhase::Stopping);
    }

    /// Whether the server shuts down.
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() >= ShutdownPhase::Draining
    }

    fn is_stopping(&self) -> bool {
        *self.phase.borrow() == ShutdownPhase::Stopping
    }

    fn subscribe_phase(&self) -> watch::Receiver<ShutdownPhase> {
        self.phase.subscribe()
    }

    /// Completes when streams must end.
    fn wait_for_stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut phases = self.subscribe_phase();
        async move {
            // An error means that the process is gone.
            let _ = phases.wait_for(|phase| *phase == ShutdownPhase::Stopping).await;
        }
    }

    /// The model for a request; one of the repository that had to make room comes back.
    ///
    /// # Errors
    /// As [`ModelRegistry::get`], and whatever keeps it from coming back.
    pub async fn find_model(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Arc<LoadedModel>, ApiError> {
        match self.models.get(name, version) {
            Err(error @ ApiError::NotFound(_)) => {
                match self.repository.reload_evicted(self, name, version).await? {
                    true => self.models.get(name, version),
                    false => Err(error),
                }
            }
            found => found,
        }
    }

    /// Whether a model is ready.
    ///
    /// # Errors
    /// `NotFound` when there is no such model: not ready and not there are two answers.
    fn is_model_ready(&self, name: &str, version: Option<&str>) -> Result<bool, ApiError> {
        match self.models.get(name, version) {
            Err(error @ ApiError::NotFound(_)) => Err(error),
            found => Ok(found.is_ok() && self.unready_reason().is_none()),
        }
    }

    /// The models whose statistics are asked for: all, or all versions of one, or one.
    ///
    /// # Errors
    /// As [`ModelRegistry::get`].
    fn models_for_statistics(
        &self,
        name: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<Arc<LoadedModel>>, ApiError> {
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
    async fn repository_index(self: &Arc<Self>, ready: bool) -> Result<Vec<IndexEntry>, ApiError> {
        let app = Arc::clone(self);
        let listed = tokio::task::spawn_blocking(move || app.repository.index(&app)).await;
        let mut entries = listed
            .map_err(|e| ApiError::Internal(format!("reading the repository failed: {e}")))?;
        entries.retain(|entry| !ready || entry.state == "READY");
        Ok(entries)
    }

    /// Why the server is not ready, if it is not.
    pub fn unready_reason(&self) -> Option<&'static str> {
        if self.is_stopping() {
            Some("shutting down")
        } else if self.models.primary().is_none() {
            Some("the model is loading")
        } else {
            None
        }
    }
}

/// Answers one request on the port of the API. gRPC and REST share it: the content type tells them
/// apart.
pub async fn handle_api(app: Arc<AppState>, request: Request<Incoming>) -> ApiResponse {
    app.activity.note_request();
    if request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers()) {
        return grpc::handle_call(&app, request).await.map(Either::Right);
    }
    api::handle_rest(&app, request).await.map(Either::Left)
}

fn bytes_response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> FullResponse {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn json_response(status: StatusCode, value: &impl Serialize) -> FullResponse {
    // Our own values always serialize; an empty body would still carry the status.
    bytes_response(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

fn error_response(error: &ApiError) -> FullResponse {
    let mut answer =
        json_response(error.status(), &serde_json::json!({"error": error.to_string()}));
    if let Some(seconds) = error.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Asks an HTTP/1 client not to use this connection again. (HTTP/2 has its own way, which the
/// listener uses.)
fn set_connection_close(answer: &mut FullResponse) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
