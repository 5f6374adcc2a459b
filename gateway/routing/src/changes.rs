//! Changes that must be reported to the operator at once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Number of the latest changes that are kept by name.
const MAX_CHANGES: usize = 1024;

/// Notifies subscribers of changes that must be reported to the operator at once, with the affected
/// ModelDeployment.
#[derive(Clone, Debug)]
pub struct ChangeNotifier {
    version: Arc<watch::Sender<u64>>,
    /// The names of the latest changes, and the version of the newest one.
    last: Arc<Mutex<(u64, VecDeque<Arc<str>>)>>,
}

impl Default for ChangeNotifier {
    fn default() -> Self {
        Self { version: Arc::new(watch::Sender::new(0)), last: Arc::default() }
    }
}

impl ChangeNotifier {
    /// Notifies all subscribers of a change.
    pub fn announce(&self, model: &str) {
        let mut last = self.last.lock();
        last.0 += 1;
        last.1.push_back(model.into());
        if last.1.len() > MAX_CHANGES {
            last.1.pop_front();
        }
        // While the lock is held, so that a subscriber that receives a version finds its name.
        self.version.send_replace(last.0);
    }

    /// Subscribes to later changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Names of the ModelDeployments that changed after a version; `None` when they are not all
    /// kept any more.
    pub fn changed_since(&self, version: u64) -> Option<BTreeSet<Arc<str>>> {
        let last = self.last.lock();
        let new = usize::try_from(last.0.saturating_sub(version)).unwrap_or(usize::MAX);
        (new <= last.1.len()).then(|| last.1.iter().rev().take(new).cloned().collect())
    }

    /// A notifier for the changes of one ModelDeployment.
    pub fn for_model(&self, model: &str) -> ModelChanges {
        ModelChanges { all: self.clone(), model: model.into() }
    }
}

/// Notifies subscribers of changes of one ModelDeployment.
#[derive(Clone, Debug)]
pub struct ModelChanges {
    all: ChangeNotifier,
    model: Arc<str>,
}

impl ModelChanges {
    /// Notifies all subscribers of a change.
    pub fn announce(&self) {
        self.all.announce(&self.model);
    }
}
