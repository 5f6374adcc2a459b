//! The loaded models.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use slipway_runtime_engine::batching::BatchingDecision;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_engine::pool::WorkerPool;
use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::stats::ModelStats;
use slipway_runtime_protocol::ModelDescription;
use tokio::sync::watch;

use crate::observe::Observer;
use crate::prediction::OutputReader;

/// A model that is ready to serve.
#[derive(Debug)]
pub struct LoadedModel {
    /// The model's name in the protocol.
    pub name: String,
    /// The model's version in the protocol.
    pub version: String,
    /// `sha256:<hex>` of the model's file.
    pub digest: String,
    pub signature: ModelSignature,
    /// Whether the model's requests run together, and why.
    pub batching: BatchingDecision,
    pub pool: WorkerPool,
    /// Reads labels and confidences from the outputs.
    pub reader: OutputReader,
    /// Statistics of the model's requests.
    pub stats: Arc<ModelStats>,
    /// Memory of the model in bytes; 0 for the pod's own model, which is not measured.
    pub bytes: u64,
    /// Time of the last use, by the clock of [`ModelRegistry`].
    pub last_used: AtomicU64,
    /// Counts traffic in the bins of the model's baseline, if it has one.
    pub observer: Option<Arc<Observer>>,
}

impl LoadedModel {
    /// The properties that appear in the model's metadata.
    pub fn description(&self) -> ModelDescription<'_> {
        ModelDescription {
            name: &self.name,
            digest: &self.digest,
            signature: &self.signature,
            batching: &self.batching,
        }
    }
}

/// The models of this process by name.
#[derive(Debug)]
pub struct ModelRegistry {
    /// The name of the pod's own model: until it is loaded, requests for it are answered with
    /// `Unavailable` instead of `NotFound`.
    primary_name: String,
    ready: RwLock<Vec<Arc<LoadedModel>>>,
    /// Counts uses; only their order matters.
    clock: AtomicU64,
    changes: watch::Sender<()>,
}

impl ModelRegistry {
    /// Creates an empty registry; the model `own` will be added later.
    pub fn new(own: &str) -> Self {
        Self {
            primary_name: own.to_owned(),
            ready: RwLock::default(),
            clock: AtomicU64::new(1),
            changes: watch::Sender::new(()),
        }
    }

    pub fn primary_name(&self) -> &str {
        &self.primary_name
    }

    /// Notifies of every model that is added or removed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Adds a model, or replaces the one of the same name and version. Requests that use the
    /// replaced model finish on it.
    pub fn insert(&self, model: LoadedModel) -> Arc<LoadedModel> {
        let model = Arc::new(model);
        self.touch(&model);
        let mut ready = self.ready.write();
        ready.retain(|it| (&it.name, &it.version) != (&model.name, &model.version));
        ready.push(Arc::clone(&model));
        drop(ready);
        self.changes.send_replace(());
        model
    }

    /// Removes models: all versions of a name, or one. Requests that use them finish.
    pub fn remove(&self, name: &str, version: Option<&str>) -> Vec<Arc<LoadedModel>> {
        let mut ready = self.ready.write();
        let gone =
            |it: &Arc<LoadedModel>| it.name == name && version.is_none_or(|v| v == it.version);
        let removed: Vec<_> = ready.iter().filter(|it| gone(it)).map(Arc::clone).collect();
        ready.retain(|it| !gone(it));
        drop(ready);
        self.changes.send_replace(());
        removed
    }

    /// The pod's own model, once it is ready.
    pub fn primary(&self) -> Option<Arc<LoadedModel>> {
        self.all().into_iter().find(|model| model.name == self.primary_name)
    }

    /// All models that are ready.
    pub fn all(&self) -> Vec<Arc<LoadedModel>> {
        self.ready.read().clone()
    }

    /// The versions of a model that are ready, in the order of loading.
    pub fn versions(&self, name: &str) -> Vec<String> {
        self.all()
            .iter()
            .filter(|model| model.name == name)
            .map(|model| model.version.clone())
            .collect()
    }

    /// All models except the pod's own, least recently used first.
    pub fn repository_models(&self) -> Vec<Arc<LoadedModel>> {
        let mut models = self.all();
        models.retain(|model| model.name != self.primary_name);
        models.sort_by_key(|model| model.last_used.load(Ordering::Relaxed));
        models
    }

    fn touch(&self, model: &LoadedModel) {
        model.last_used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The model for a request; the newest of its versions when the request names none.
    ///
    /// # Errors
    /// `NotFound` when there is no such model or version; `Unavailable` while the pod's own model
    /// is loading.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<LoadedModel>, PredictError> {
        let ready = self.ready.read();
        let mut of_name = ready.iter().rev().filter(|model| model.name == name).peekable();
        if of_name.peek().is_none() {
            return Err(if name == self.primary_name {
                PredictError::Unavailable("the model is loading; try again later".into())
            } else {
                PredictError::NotFound(format!(
                    "there is no model {name:?} here; there is {:?}",
                    self.primary_name
                ))
            });
        }
        let have: Vec<&str> = of_name.clone().map(|model| model.version.as_str()).collect();
        let found = of_name.find(|model| version.is_none_or(|v| v == model.version));
        let found = found.map(Arc::clone).ok_or_else(|| {
            PredictError::NotFound(format!(
                "model {name:?} has no version {:?} here; there is {have:?}",
                version.unwrap_or_default()
            ))
        })?;
        self.touch(&found);
        Ok(found)
    }
}
