//! Models in a directory, loaded and unloaded by name.
//!
//! They are declared as files, `<directory>/<name>/<version>/model.onnx`. The total size of loaded
//! models is limited in bytes: the least recently used model is evicted, never the pod's own. An
//! evicted model is loaded again by its next request; an unloaded one is not.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use slipway_runtime_engine::batching::BatchingMode;
use slipway_runtime_engine::error::{LoadError, PredictError};
use slipway_runtime_engine::fetch::{self, FetchOptions};
use slipway_runtime_predict::load::{self, BuildOptions, ModelArtifact};
use slipway_runtime_predict::models::ModelRegistry;
use slipway_runtime_predict::repository::{IndexEntry, LoadFuture, ModelRepository};

use crate::sandbox;

/// Largest number of models and versions that are listed.
const MAX_LISTED: usize = 1000;
const MAX_NAME: usize = 128;
const MODEL_FILE: &str = "model.onnx";

/// Why a declared model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AbsenceReason {
    Unloaded,
    Evicted,
    Failed(String),
}

/// Which models may be loaded, and how.
#[derive(Debug, Clone, Default)]
pub struct RepositoryOptions {
    /// Where they lie.
    pub directory: PathBuf,
    /// Memory for all of them together, in bytes.
    pub max_bytes: u64,
    /// What bounds the reading of a model.
    pub fetch: FetchOptions,
    pub build: BuildOptions,
}

/// The models of one directory, and why those that are not loaded are not.
#[derive(Debug)]
pub struct DirectoryRepository {
    options: RepositoryOptions,
    /// Held while a model is loaded: one load at a time limits memory and CPU.
    loading: tokio::sync::Mutex<()>,
    absences: Mutex<HashMap<(String, String), AbsenceReason>>,
}

impl DirectoryRepository {
    /// A repository of which nothing is loaded.
    pub fn new(options: RepositoryOptions) -> Self {
        Self { options, loading: tokio::sync::Mutex::default(), absences: Mutex::default() }
    }

    fn set_absence(&self, name: &str, version: &str, absent: Option<AbsenceReason>) {
        let key = (name.to_owned(), version.to_owned());
        let mut map = self.absences.lock();
        match absent {
            // Only declared versions reach this map, but the declared files can change without
            // limit.
            Some(absent) if map.len() < MAX_LISTED || map.contains_key(&key) => {
                drop(map.insert(key, absent))
            }
            Some(_) => {}
            None => drop(map.remove(&key)),
        }
    }

    fn absence_reason(&self, name: &str, version: &str) -> Option<AbsenceReason> {
        let map = self.absences.lock();
        map.get(&(name.to_owned(), version.to_owned())).cloned()
    }

    /// The evicted version of that model, if there is one.
    fn evicted_version(&self, name: &str, version: Option<&str>) -> Option<String> {
        let map = self.absences.lock();
        let mut versions =
            map.iter().filter(|((n, _), absent)| n == name && **absent == AbsenceReason::Evicted);
        versions
            .find(|((_, v), _)| version.is_none_or(|want| want == v))
            .map(|((_, v), _)| v.clone())
    }

    /// Versions of a declared model, the newest first.
    fn declared_versions(&self, name: &str) -> Vec<String> {
        let directory = &self.options.directory;
        let mut versions: Vec<_> = directory_names(&directory.join(name))
            .into_iter()
            .filter(|version| directory.join(name).join(version).join(MODEL_FILE).is_file())
            .collect();
        // Numbers are ordered by value, and before names.
        versions.sort_by_key(|v| (v.parse::<u64>().ok(), v.clone()));
        versions.reverse();
        versions
    }

    async fn load_or_reload(
        &self,
        models: &ModelRegistry,
        name: &str,
        version: Option<&str>,
        recalled: bool,
    ) -> Result<(), PredictError> {
        let version = self.resolve_version(name, version)?;
        let path = self.options.directory.join(name).join(&version).join(MODEL_FILE);
        let _one_at_a_time = self.loading.lock().await;
        if recalled && models.get(name, Some(&version)).is_ok() {
            // Another request has loaded it.
            return Ok(());
        }
        let result = self.check_and_load(models, name, &version, path).await;
        match &result {
            Ok(()) => self.set_absence(name, &version, None),
            // A transient failure is retried by the next request.
            Err(PredictError::Unavailable(_)) if recalled => {}
            Err(error) => {
                tracing::warn!(model = name, version, %error, "cannot load a model of the repository");
                self.set_absence(name, &version, Some(AbsenceReason::Failed(error.to_string())));
            }
        }
        result
    }

    fn resolve_version(&self, name: &str, version: Option<&str>) -> Result<String, PredictError> {
        let none = || {
            PredictError::NotFound(format!(
                "there is no {name}/<version>/{MODEL_FILE} in the repository"
            ))
        };
        if !is_plain_name(name) || version.is_some_and(|v| !is_plain_name(v)) {
            return Err(PredictError::invalid(
                "a model's name and version are 1 to 128 letters, digits, '-', '_' and '.'",
            ));
        }
        let versions = self.declared_versions(name);
        let Some(version) = version else { return versions.into_iter().next().ok_or_else(none) };
        versions.into_iter().find(|v| v == version).ok_or_else(|| {
            PredictError::NotFound(format!(
                "there is no {name}/{version}/{MODEL_FILE} in the repository"
            ))
        })
    }

    async fn check_and_load(
        &self,
        models: &ModelRegistry,
        name: &str,
        version: &str,
        path: PathBuf,
    ) -> Result<(), PredictError> {
        let hashed = {
            let (path, options) = (path.clone(), self.options.fetch.clone());
            run_blocking(move || fetch::hash_model(&path, &options)).await?
        };
        if models.get(name, Some(version)).is_ok_and(|model| model.digest == hashed) {
            return Ok(());
        }
        let build = &self.options.build;
        let rows = if build.batching == BatchingMode::Disabled { 1 } else { build.max_batch_rows };
        let facts =
            sandbox::trial_load(&build.onnxruntime, &path, self.options.max_bytes, rows).await;
        let facts = facts.map_err(to_predict_error)?;
        let bytes = facts.bytes.saturating_mul(build.workers as u64);
        self.evict_for(models, name, version, bytes)?;
        let artifact = ModelArtifact {
            name: name.to_owned(),
            version: version.to_owned(),
            path,
            digest: hashed,
            bytes,
            baseline: None,
            // Models come and go, and together they might fill the disk.
            optimised_dir: None,
        };
        let options = build.clone();
        let model = run_blocking(move || load::build_model(&options, artifact)).await?;
        tracing::info!(
            model = name,
            version,
            bytes,
            digest = model.digest,
            "loaded a model of the repository"
        );
        models.insert(model);
        Ok(())
    }

    /// Evicts the least recently used models. Requests that use them finish.
    fn evict_for(
        &self,
        models: &ModelRegistry,
        name: &str,
        version: &str,
        bytes: u64,
    ) -> Result<(), PredictError> {
        if bytes > self.options.max_bytes {
            return Err(PredictError::Unsupported(format!(
                "the model takes {bytes} bytes of memory; all models of the repository together may take {} (--max-models-bytes)",
                self.options.max_bytes
            )));
        }
        let mut loaded = models.repository_models();
        loaded.retain(|model| (model.name.as_str(), model.version.as_str()) != (name, version));
        let mut taken: u64 = loaded.iter().map(|model| model.bytes).sum();
        for model in loaded {
            if taken + bytes <= self.options.max_bytes {
                break;
            }
            taken -= model.bytes;
            models.remove(&model.name, Some(&model.version));
            self.set_absence(&model.name, &model.version, Some(AbsenceReason::Evicted));
            tracing::info!(
                model = model.name,
                version = model.version,
                bytes = model.bytes,
                "a model made room"
            );
        }
        Ok(())
    }
}

impl ModelRepository for DirectoryRepository {
    fn add_unloaded(&self, entries: &mut Vec<IndexEntry>) {
        for name in directory_names(&self.options.directory) {
            for version in self.declared_versions(&name) {
                if entries.len() >= MAX_LISTED
                    || entries.iter().any(|e| e.name == name && e.version == version)
                {
                    continue;
                }
                let reason = match self.absence_reason(&name, &version) {
                    Some(AbsenceReason::Unloaded) => "unloaded".to_owned(),
                    Some(AbsenceReason::Evicted) => {
                        "made room for others; comes back with its next request".to_owned()
                    }
                    Some(AbsenceReason::Failed(reason)) => reason,
                    None => "not loaded".to_owned(),
                };
                let name = name.clone();
                entries.push(IndexEntry { name, version, state: "UNAVAILABLE", reason });
            }
        }
    }

    fn load<'a>(
        &'a self,
        models: &'a ModelRegistry,
        name: &'a str,
        version: Option<&'a str>,
    ) -> LoadFuture<'a, ()> {
        Box::pin(self.load_or_reload(models, name, version, false))
    }

    fn unload(&self, models: &ModelRegistry, name: &str) -> Result<(), PredictError> {
        let removed = models.remove(name, None);
        let evicted = std::iter::from_fn(|| {
            let version = self.evicted_version(name, None)?;
            self.set_absence(name, &version, Some(AbsenceReason::Unloaded));
            Some(())
        });
        if removed.is_empty() && evicted.take(MAX_LISTED).count() == 0 {
            return Err(PredictError::NotFound(format!("model {name:?} is not loaded here")));
        }
        for model in removed {
            self.set_absence(&model.name, &model.version, Some(AbsenceReason::Unloaded));
            tracing::info!(
                model = model.name,
                version = model.version,
                "unloaded a model of the repository"
            );
        }
        Ok(())
    }

    fn reload_evicted<'a>(
        &'a self,
        models: &'a ModelRegistry,
        name: &'a str,
        version: Option<&'a str>,
    ) -> LoadFuture<'a, bool> {
        Box::pin(async move {
            let Some(version) = self.evicted_version(name, version) else { return Ok(false) };
            self.load_or_reload(models, name, Some(&version), true).await.map(|()| true)
        })
    }
}

/// Names of the subdirectories of a directory, sorted; names that are invalid for models are left
/// out.
fn directory_names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let named = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = named
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| is_plain_name(n))
        .take(MAX_LISTED)
        .collect();
    names.sort();
    names
}

/// Whether a text is a single path component. Kubernetes keeps its own files in directories that
/// begin with a dot, so these are excluded.
fn is_plain_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty()
        && text.len() <= MAX_NAME
        && !text.starts_with('.')
        && text.bytes().all(allowed)
}

fn to_predict_error(error: LoadError) -> PredictError {
    if error.permanent {
        PredictError::Unsupported(error.to_string())
    } else {
        PredictError::Unavailable(error.to_string())
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, PredictError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| PredictError::ModelFailed(format!("the loading thread panicked: {e}")))?
        .map_err(to_predict_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        assert!(is_plain_name("digits-v2.1_x"));
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "é", "a b"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }

    #[test]
    fn the_newest_version_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["1", "10", "9", "beta", "empty"] {
            let place = dir.path().join("m").join(version);
            std::fs::create_dir_all(&place).unwrap();
            if version != "empty" {
                std::fs::write(place.join(MODEL_FILE), "x").unwrap();
            }
        }
        let directory = dir.path().to_owned();
        let repository =
            DirectoryRepository::new(RepositoryOptions { directory, ..Default::default() });
        assert_eq!(repository.declared_versions("m"), ["10", "9", "1", "beta"]);
    }
}
