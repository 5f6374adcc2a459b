//! The state that all connections share.

use std::sync::{Arc, OnceLock};

use slipway_runtime_cache::RuntimeCaches;
use slipway_runtime_common::keys::DeploymentKeys;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_jobs::metrics::JobMetrics;
use slipway_runtime_jobs::service::JobService;
use slipway_runtime_predict::metrics::RuntimeMetrics;
use slipway_runtime_predict::models::{LoadedModel, ModelRegistry};
use slipway_runtime_predict::predictor::Predictor;
use slipway_runtime_predict::repository::{IndexEntry, ModelRepository, index_loaded};
use tokio::sync::watch;

use super::EXTENSIONS;
use super::activity::RequestActivity;
use super::error::ApiError;
use crate::config::ServeArgs;

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShutdownPhase {
    /// Loading or serving.
    Serving,
    /// The process was signalled to end, and serves as long as requests arrive: it may be the only
    /// pod until its replacement is ready. It stays ready, so that the EndpointSlice lists it as
    /// serving while it terminates.
    Draining,
    /// Requests in flight finish; streams, which would not end by themselves, are ended.
    Stopping,
}

/// The state that all connections share.
#[derive(Debug)]
pub struct AppState {
    pub args: ServeArgs,
    /// The models and the path of their predictions.
    pub predictor: Arc<Predictor>,
    /// Further models that clients may load, where the server has such.
    pub repository: Option<Arc<dyn ModelRepository>>,
    /// What is told about jobs.
    pub job_metrics: JobMetrics,
    /// The queue of jobs, if there is one.
    pub jobs: OnceLock<Arc<JobService>>,
    /// How long this process is needed while it drains.
    pub activity: RequestActivity,
    phase: watch::Sender<ShutdownPhase>,
}

impl AppState {
    /// The state of a server that has not loaded its model yet.
    ///
    /// # Errors
    /// When an option is invalid.
    pub fn new(args: ServeArgs) -> Result<Arc<Self>, String> {
        let (mut metrics, job_metrics) =
            (RuntimeMetrics::new(&args.modeldeployment, &args.revision), JobMetrics::default());
        job_metrics.register(metrics.labelled_registry());
        let name = format!("{}/{}", args.namespace, args.modeldeployment);
        let keys = Arc::new(DeploymentKeys::new(
            args.keys_directory.clone(),
            &name,
            &args.uid,
            &args.revision,
        ));
        let caches = RuntimeCaches::new(&args.cache, &name, &keys, &metrics.cache)?;
        let predictor = Arc::new(Predictor {
            models: ModelRegistry::new(&args.model_name),
            caches,
            metrics,
            sampler: OnceLock::new(),
            keys,
            max_request_rows: args.max_request_rows,
        });
        Ok(Arc::new(Self {
            repository: args.open_repository(),
            args,
            predictor,
            job_metrics,
            jobs: OnceLock::new(),
            activity: RequestActivity::default(),
            phase: watch::Sender::new(ShutdownPhase::Serving),
        }))
    }

    /// From now on the server asks its clients to reconnect elsewhere.
    pub fn start_draining(&self) {
        self.phase.send_replace(ShutdownPhase::Draining);
    }

    /// From now on the server is not ready, and streams end.
    pub fn start_stopping(&self) {
        self.phase.send_replace(ShutdownPhase::Stopping);
    }

    /// Whether the server shuts down.
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() >= ShutdownPhase::Draining
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.phase.borrow() == ShutdownPhase::Stopping
    }

    pub(super) fn subscribe_phase(&self) -> watch::Receiver<ShutdownPhase> {
        self.phase.subscribe()
    }

    /// Completes when streams must end.
    pub(super) fn wait_for_stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut phases = self.subscribe_phase();
        async move {
            // An error means that the process ends.
            let _ = phases.wait_for(|phase| *phase == ShutdownPhase::Stopping).await;
        }
    }

    /// The model for a request; an evicted model of the repository is loaded again.
    ///
    /// # Errors
    /// As [`ModelRegistry::get`], and any error of loading it again.
    pub async fn find_model(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Arc<LoadedModel>, PredictError> {
        let models = &self.predictor.models;
        let found = models.get(name, version);
        if let (Err(PredictError::NotFound(_)), Some(repository)) = (&found, &self.repository)
            && repository.reload_evicted(models, name, version).await?
        {
            return models.get(name, version);
        }
        found
    }

    /// Loads a model of the repository; the pod's own is loaded without being asked.
    ///
    /// # Errors
    /// As [`ModelRepository::load`]; `Unsupported` where there is no repository.
    pub(super) async fn load_model(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<(), PredictError> {
        let models = &self.predictor.models;
        if name == models.primary_name() {
            return models.get(name, version).map(drop);
        }
        match &self.repository {
            Some(repository) => repository.load(models, name, version).await,
            None => Err(PredictError::Unsupported(
                "this server has no model repository: it serves one model".into(),
            )),
        }
    }

    /// Takes a model of the repository out.
    ///
    /// # Errors
    /// `Unsupported` for the pod's own model, `NotFound` for one that is not loaded.
    pub(super) fn unload_model(&self, name: &str) -> Result<(), PredictError> {
        let models = &self.predictor.models;
        if name == models.primary_name() {
            return Err(PredictError::Unsupported(format!(
                "{name:?} is this pod's own model and stays loaded"
            )));
        }
        match &self.repository {
            Some(repository) => repository.unload(models, name),
            None => Err(PredictError::NotFound(format!("model {name:?} is not loaded here"))),
        }
    }

    /// The extensions of the protocol that this server has.
    pub(super) fn extensions(&self) -> Vec<&'static str> {
        let repository = self.repository.as_ref().map(|_| "model_repository");
        EXTENSIONS.into_iter().chain(repository).collect()
    }

    /// Whether a model is ready.
    ///
    /// # Errors
    /// `NotFound` when there is no such model: clients must be able to distinguish it from a model
    /// that is not ready.
    pub(super) fn is_model_ready(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<bool, PredictError> {
        match self.predictor.models.get(name, version) {
            Err(error @ PredictError::NotFound(_)) => Err(error),
            found => Ok(found.is_ok() && self.unready_reason().is_none()),
        }
    }

    /// The models whose statistics are requested: all, all versions of one, or one.
    ///
    /// # Errors
    /// As [`ModelRegistry::get`].
    pub(super) fn models_for_statistics(
        &self,
        name: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<Arc<LoadedModel>>, PredictError> {
        let Some(name) = name else { return Ok(self.predictor.models.all()) };
        self.predictor.models.get(name, version)?;
        let mut models = self.predictor.models.all();
        models.retain(|model| model.name == name && version.is_none_or(|v| v == model.version));
        Ok(models)
    }

    /// What is served, and what the repository could load; only what is `ready` if that is asked.
    ///
    /// # Errors
    /// `Internal` when the thread that reads it is lost.
    pub(super) async fn repository_index(&self, ready: bool) -> Result<Vec<IndexEntry>, ApiError> {
        let mut entries = index_loaded(&self.predictor.models, &self.args.model_version);
        if let Some(repository) = self.repository.clone() {
            let listed = tokio::task::spawn_blocking(move || {
                repository.add_unloaded(&mut entries);
                entries
            });
            entries = listed
                .await
                .map_err(|e| ApiError::Internal(format!("reading the repository failed: {e}")))?;
        }
        entries.retain(|entry| !ready || entry.state == "READY");
        entries.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(entries)
    }

    /// Why the server is not ready, if it is not.
    pub fn unready_reason(&self) -> Option<&'static str> {
        if self.is_stopping() {
            Some("shutting down")
        } else if self.predictor.models.primary().is_none() {
            Some("the model is loading")
        } else {
            None
        }
    }
}
