//! What a server asks of a repository of further models, whether it has one or not.

use std::fmt::Debug;
use std::pin::Pin;

use serde::Serialize;
use slipway_runtime_engine::error::PredictError;

use crate::models::ModelRegistry;

/// A line of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// READY, LOADING or UNAVAILABLE.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: String,
}

/// What a repository answers after loading.
pub type LoadFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, PredictError>> + Send + 'a>>;

/// Models that clients load and unload by name, besides the one that a server was started for. That
/// one is never passed to a repository.
pub trait ModelRepository: Debug + Send + Sync {
    /// Adds what is declared and not in `entries` yet. Reads a directory, so it blocks.
    fn add_unloaded(&self, entries: &mut Vec<IndexEntry>);

    /// Loads the newest version of a declared model, or the given one.
    ///
    /// # Errors
    /// `NotFound` when it is not declared, `Unsupported` when it cannot be served here, each with
    /// the reason.
    fn load<'a>(
        &'a self,
        models: &'a ModelRegistry,
        name: &'a str,
        version: Option<&'a str>,
    ) -> LoadFuture<'a, ()>;

    /// Takes all versions of a model out.
    ///
    /// # Errors
    /// `NotFound` when none is loaded.
    fn unload(&self, models: &ModelRegistry, name: &str) -> Result<(), PredictError>;

    /// Loads a model again that was taken out to make room; `false` when it is no such model.
    fn reload_evicted<'a>(
        &'a self,
        models: &'a ModelRegistry,
        name: &'a str,
        version: Option<&'a str>,
    ) -> LoadFuture<'a, bool>;
}

/// The index of a server's loaded models. Its own is listed before it is ready, with the version
/// that it will have.
pub fn index_loaded(models: &ModelRegistry, own_version: &str) -> Vec<IndexEntry> {
    let entry = |name: &str, version: &str, state| IndexEntry {
        name: name.to_owned(),
        version: version.to_owned(),
        state,
        reason: String::new(),
    };
    let ready = models.all();
    let mut entries: Vec<IndexEntry> =
        ready.iter().map(|model| entry(&model.name, &model.version, "READY")).collect();
    if models.primary().is_none() {
        entries.push(entry(models.primary_name(), own_version, "LOADING"));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_lists_its_model_while_it_loads() {
        let entries = index_loaded(&ModelRegistry::new("m"), "7");
        let lines: Vec<_> =
            entries.iter().map(|e| (e.name.as_str(), e.version.as_str(), e.state)).collect();
        assert_eq!(lines, [("m", "7", "LOADING")]);
    }
}
