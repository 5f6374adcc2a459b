//! Changes that the operator wants to know at once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// So many changes are known by name.
const MAX_CHANGES: usize = 1024;

/// Says that something changed that the operator wants to know at once, and of which
/// ModelDeployment.
#[derive(Clone, Debug)]
pub struct ChangeNotifier {
    version: Arc<watch::Sender<u64>>,
    /// The last ones, and the version that the newest of them made.
    last: Arc<Mutex<(u64, VecDeque<Arc<str>>)>>,
}

impl Default for ChangeNotifier {
    fn default() -> Self {
        Self { version: Arc::new(watch::Sender::new(0)), last: Arc::default() }
    }
}

impl ChangeNotifier {
    /// Wakes everybody who waits for a change.
    pub fn announce(&self, model: &str) {
        let mut last = self.last.lock();
        last.0 += 1;
        last.1.push_back(model.into());
        if last.1.len() > MAX_CHANGES {
            last.1.pop_front();
        }
        // Within the lock: who hears of a version finds its name.
        self.version.send_replace(last.0);
    }

    /// Hears of changes from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Names of the ModelDeployments that changed after a version; none when they are not known any
    /// more.
    pub fn changed_since(&self, version: u64) -> Option<BTreeSet<Arc<str>>> {
        let last = self.last.lock();
        let new = usize::try_from(last.0.saturating_sub(version)).unwrap_or(usize::MAX);
        (new <= last.1.len()).then(|| last.1.iter().rev().take(new).cloned().collect())
    }

    /// The changes of one ModelDeployment.
    pub fn for_model(&self, model: &str) -> ModelChanges {
        ModelChanges { all: self.clone(), model: model.into() }
    }
}

/// Says that one ModelDeployment changed.
#[derive(Clone, Debug)]
pub struct ModelChanges {
    all: ChangeNotifier,
    model: Arc<str>,
}

impl ModelChanges {
    /// Wakes everybody who waits for a change.
    pub fn announce(&self) {
        self.all.announce(&self.model);
    }
}
