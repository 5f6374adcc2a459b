//! What is served and what could be.

use serde::Serialize;

use super::{AbsenceReason, MAX_LISTED, ModelRepository, directory_names};
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

impl ModelRepository {
    /// All that is served or declared; reads the directory, so it blocks.
    pub fn index(&self, models: &ModelRegistry) -> Vec<IndexEntry> {
        let mut entries: Vec<IndexEntry> = Vec::new();
        let ready = models.all();
        if models.primary().is_none() {
            let (name, version) =
                (models.primary_name().to_owned(), self.options.primary_version.clone());
            entries.push(IndexEntry { name, version, state: "LOADING", reason: String::new() });
        }
        for model in &ready {
            let (name, version) = (model.name.clone(), model.version.clone());
            entries.push(IndexEntry { name, version, state: "READY", reason: String::new() });
        }
        for name in self.options.directory.as_deref().map(directory_names).unwrap_or_default() {
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
                entries.push(IndexEntry {
                    name: name.clone(),
                    version,
                    state: "UNAVAILABLE",
                    reason,
                });
            }
        }
        entries.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        entries
    }
}
