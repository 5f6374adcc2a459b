//! The store of models: the digest at the URI of each version.

use crate::cluster::SimulatedCluster;

/// The digest of a version's model after `serial` changes of it.
pub(crate) fn model_digest(version: &str, serial: i64) -> String {
    let number: u64 = version.trim_start_matches('v').parse().unwrap_or_default();
    format!("sha256:{number:04x}{serial:060x}")
}

impl SimulatedCluster {
    /// The digest of the model at the URI of a version.
    pub(crate) fn stored_digest(&self, version: &str) -> String {
        self.store.get(version).cloned().unwrap_or_else(|| model_digest(version, 0))
    }

    /// Another client overwrites the model at the URI of a version.
    pub(crate) fn overwrite_model(&mut self, version: &str, serial: i64) {
        self.store.insert(version.to_owned(), model_digest(version, serial));
    }

    /// Restores the models that the existing revisions need.
    pub(crate) fn restore_models(&mut self) {
        for set in &self.replica_sets {
            if let Some(digest) = set.view.digest.known_digest() {
                self.store.insert(set.view.version.clone(), digest.to_owned());
            }
        }
    }
}
