//! The model repository: further models of a pod, loaded and unloaded by name.
//!
//! They are declared as files, `<directory>/<name>/<version>/model.onnx`. What is loaded is bounded by bytes: the model that was not used
//! for longest makes room, never the pod's own. One that had to go comes back with its next request; one that was unloaded does not.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::error::{ApiError, LoadError};
use crate::load::{self, Artifact};
use crate::server::App;
use crate::{fetch, vet};

/// Models and versions that are listed.
const MAX_LISTED: usize = 1000;
const MAX_NAME: usize = 128;
const FILE: &str = "model.onnx";

/// A line of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// READY, LOADING or UNAVAILABLE.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: String,
}

/// Why a declared model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Absent {
    Unloaded,
    Evicted,
    Failed(String),
}

/// The repository of this process.
#[derive(Debug)]
pub struct Repository {
    directory: Option<PathBuf>,
    max_bytes: u64,
    /// Held while a model is loaded: one at a time keeps memory and processor bounded.
    loading: tokio::sync::Mutex<()>,
    absent: Mutex<HashMap<(String, String), Absent>>,
}

impl Repository {
    /// The repository in `directory`, or none.
    pub fn new(directory: Option<PathBuf>, max_bytes: u64) -> Self {
        Self { directory, max_bytes, loading: tokio::sync::Mutex::default(), absent: Mutex::default() }
    }

    fn note(&self, name: &str, version: &str, absent: Option<Absent>) {
        let key = (name.to_owned(), version.to_owned());
        let mut map = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        match absent {
            // Only declared versions get here, but their files can change without end.
            Some(absent) if map.len() < MAX_LISTED || map.contains_key(&key) => drop(map.insert(key, absent)),
            Some(_) => {}
            None => drop(map.remove(&key)),
        }
    }

    fn absent(&self, name: &str, version: &str) -> Option<Absent> {
        let map = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&(name.to_owned(), version.to_owned())).cloned()
    }

    /// The version of that model that had to make room, if there is one.
    fn evicted(&self, name: &str, version: Option<&str>) -> Option<String> {
        let map = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut versions = map.iter().filter(|((n, _), absent)| n == name && **absent == Absent::Evicted);
        versions.find(|((_, v), _)| version.is_none_or(|want| want == v)).map(|((_, v), _)| v.clone())
    }

    /// Versions of a declared model, the newest first.
    fn versions(&self, name: &str) -> Vec<String> {
        let Some(directory) = &self.directory else { return Vec::new() };
        let mut versions: Vec<_> = names(&directory.join(name))
            .into_iter()
            .filter(|version| directory.join(name).join(version).join(FILE).is_file())
            .collect();
        // Numbers by their size, and before names.
        versions.sort_by_key(|v| (v.parse::<u64>().ok(), v.clone()));
        versions.reverse();
        versions
    }

    /// All that is served or declared; reads the directory, so it blocks.
    pub fn index(&self, app: &App) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        let ready = app.models.all();
        if app.models.own().is_none() {
            let (name, version) = (app.args.model_name.clone(), app.args.model_version.clone());
            entries.push(Entry { name, version, state: "LOADING", reason: String::new() });
        }
        for model in &ready {
            let (name, version) = (model.name.clone(), model.version.clone());
            entries.push(Entry { name, version, state: "READY", reason: String::new() });
        }
        for name in self.directory.as_deref().map(names).unwrap_or_default() {
            for version in self.versions(&name) {
                if entries.len() >= MAX_LISTED || entries.iter().any(|e| e.name == name && e.version == version) {
                    continue;
                }
                let reason = match self.absent(&name, &version) {
                    Some(Absent::Unloaded) => "unloaded".to_owned(),
                    Some(Absent::Evicted) => "made room for others; comes back with its next request".to_owned(),
                    Some(Absent::Failed(reason)) => reason,
                    None => "not loaded".to_owned(),
                };
                entries.push(Entry { name: name.clone(), version, state: "UNAVAILABLE", reason });
            }
        }
        entries.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        entries
    }

    /// Loads the newest version of a declared model, or the given one.
    ///
    /// # Errors
    /// `NotFound` when it is not declared, `Unprocessable` when it cannot be served here, each with the reason.
    pub async fn load(&self, app: &App, name: &str, version: Option<&str>) -> Result<(), ApiError> {
        self.load_or_recall(app, name, version, false).await
    }

    async fn load_or_recall(
        &self,
        app: &App,
        name: &str,
        version: Option<&str>,
        recalled: bool,
    ) -> Result<(), ApiError> {
        if name == app.models.own_name() {
            return app.models.get(name, version).map(drop);
        }
        let Some(directory) = &self.directory else {
            return Err(ApiError::Unprocessable(
                "this server has no repository; start it with --model-repository to load further models".into(),
            ));
        };
        let version = self.declared(name, version)?;
        let path = directory.join(name).join(&version).join(FILE);
        let _one_at_a_time = self.loading.lock().await;
        if recalled && app.models.get(name, Some(&version)).is_ok() {
            // Another request for it was first.
            return Ok(());
        }
        let result = self.bring(app, name, &version, path).await;
        match &result {
            Ok(()) => self.note(name, &version, None),
            // What may pass is tried again by the next request.
            Err(ApiError::Unavailable(_)) if recalled => {}
            Err(error) => {
                tracing::warn!(model = name, version, %error, "cannot load a model of the repository");
                self.note(name, &version, Some(Absent::Failed(error.to_string())));
            }
        }
        result
    }

    fn declared(&self, name: &str, version: Option<&str>) -> Result<String, ApiError> {
        let none = || ApiError::NotFound(format!("there is no {name}/<version>/{FILE} in the repository"));
        if !plain(name) || version.is_some_and(|v| !plain(v)) {
            return Err(ApiError::bad("a model's name and version are 1 to 128 letters, digits, '-', '_' and '.'"));
        }
        let versions = self.versions(name);
        let Some(version) = version else { return versions.into_iter().next().ok_or_else(none) };
        versions
            .into_iter()
            .find(|v| v == version)
            .ok_or_else(|| ApiError::NotFound(format!("there is no {name}/{version}/{FILE} in the repository")))
    }

    async fn bring(&self, app: &App, name: &str, version: &str, path: PathBuf) -> Result<(), ApiError> {
        let hashed = {
            let (path, options) = (path.clone(), fetch::Options::of(&app.args));
            blocking(move || fetch::hash(&path, &options)).await?
        };
        if app.models.get(name, Some(version)).is_ok_and(|model| model.digest == hashed) {
            return Ok(());
        }
        let facts = vet::vet(&app.args, &path, self.max_bytes).await.map_err(refusal)?;
        let bytes = facts.bytes.saturating_mul(app.args.threads().workers as u64);
        self.make_room(app, name, version, bytes)?;
        let artifact = Artifact {
            name: name.to_owned(),
            version: version.to_owned(),
            path,
            digest: hashed,
            bytes,
            baseline: None,
            // Guests come and go, and together they might fill the disk.
            optimised_dir: None,
        };
        let args = app.args.clone();
        let model = blocking(move || load::build(&args, artifact)).await?;
        tracing::info!(model = name, version, bytes, digest = model.digest, "loaded a model of the repository");
        app.models.insert(model);
        Ok(())
    }

    /// Sends away those that were not used for longest. What is still answered by them finishes.
    fn make_room(&self, app: &App, name: &str, version: &str, bytes: u64) -> Result<(), ApiError> {
        if bytes > self.max_bytes {
            return Err(ApiError::Unprocessable(format!(
                "the model takes {bytes} bytes of memory; all models of the repository together may take {} (--max-models-bytes)",
                self.max_bytes
            )));
        }
        let mut guests = app.models.guests();
        guests.retain(|guest| (guest.name.as_str(), guest.version.as_str()) != (name, version));
        let mut taken: u64 = guests.iter().map(|guest| guest.bytes).sum();
        for guest in guests {
            if taken + bytes <= self.max_bytes {
                break;
            }
            taken -= guest.bytes;
            app.models.remove(&guest.name, Some(&guest.version));
            self.note(&guest.name, &guest.version, Some(Absent::Evicted));
            tracing::info!(model = guest.name, version = guest.version, bytes = guest.bytes, "a model made room");
        }
        Ok(())
    }

    /// Takes a model out, all its versions or one.
    ///
    /// # Errors
    /// `Unprocessable` for the pod's own model, `NotFound` for one that is not loaded.
    pub fn unload(&self, app: &App, name: &str, version: Option<&str>) -> Result<(), ApiError> {
        if name == app.models.own_name() {
            return Err(ApiError::Unprocessable(format!("{name:?} is this pod's own model and stays loaded")));
        }
        let removed = app.models.remove(name, version);
        let evicted = std::iter::from_fn(|| {
            let version = self.evicted(name, version)?;
            self.note(name, &version, Some(Absent::Unloaded));
            Some(())
        });
        if removed.is_empty() && evicted.take(MAX_LISTED).count() == 0 {
            return Err(ApiError::NotFound(format!("model {name:?} is not loaded here")));
        }
        for model in removed {
            self.note(&model.name, &model.version, Some(Absent::Unloaded));
            tracing::info!(model = model.name, version = model.version, "unloaded a model of the repository");
        }
        Ok(())
    }

    /// Brings a model back that had to make room; `false` when it is no such model.
    pub(crate) async fn recall(&self, app: &App, name: &str, version: Option<&str>) -> Result<bool, ApiError> {
        match self.evicted(name, version) {
            Some(version) => self.load_or_recall(app, name, Some(&version), true).await.map(|()| true),
            None => Ok(false),
        }
    }
}

/// Names of directories in a directory, sorted; those that are no names of models are left out.
fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let named = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> =
        named.filter_map(|e| e.file_name().into_string().ok()).filter(|n| plain(n)).take(MAX_LISTED).collect();
    names.sort();
    names
}

/// Whether a text can be a part of a path and nothing else. Kubernetes keeps its own files in directories that begin with a dot.
fn plain(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= MAX_NAME && !text.starts_with('.') && text.bytes().all(allowed)
}

fn refusal(error: LoadError) -> ApiError {
    if error.permanent { ApiError::Unprocessable(error.to_string()) } else { ApiError::Unavailable(error.to_string()) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| ApiError::Internal(format!("the loading thread panicked: {e}")))?.map_err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        assert!(plain("digits-v2.1_x"));
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "é", "a b"] {
            assert!(!plain(name), "{name:?}");
        }
    }

    #[test]
    fn the_newest_version_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["1", "10", "9", "beta", "empty"] {
            let place = dir.path().join("m").join(version);
            std::fs::create_dir_all(&place).unwrap();
            if version != "empty" {
                std::fs::write(place.join(FILE), "x").unwrap();
            }
        }
        let repository = Repository::new(Some(dir.path().to_owned()), 0);
        assert_eq!(repository.versions("m"), ["10", "9", "1", "beta"]);
    }
}
