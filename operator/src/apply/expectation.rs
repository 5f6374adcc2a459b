//! A write that the watch is expected to report. Planning waits for it, so that no action is
//! executed twice.

use std::time::Duration;

use slipway_cluster_views::{ClusterViews, ObjectOwner};
use slipway_objects::ManagedKind;

/// How long planning waits for the watch to report a write. A watch that takes longer is broken;
/// the preconditions of the writes then keep a plan from stale caches harmless.
pub(crate) const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(2);

/// A write that the watch is expected to report.
#[derive(Clone, Debug)]
pub struct WriteExpectation {
    pub child: ManagedKind,
    pub owner: ObjectOwner,
    pub name: String,
    pub awaited: AwaitedState,
}

/// The expected state of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwaitedState {
    /// This resource version or a later one.
    Version(u64),
    /// No object with this UID exists, or it is being deleted.
    Deleted(String),
}

impl WriteExpectation {
    /// Whether the caches contain the expected state.
    pub fn is_met(&self, views: &ClusterViews) -> bool {
        let known = views.known_object(self.child, &self.owner, &self.name);
        match &self.awaited {
            AwaitedState::Version(version) => known.is_some_and(|k| k.version >= *version),
            AwaitedState::Deleted(uid) => {
                let deleting = || match self.child {
                    ManagedKind::ReplicaSet => views
                        .replica_sets
                        .get(&self.owner, &self.name)
                        .is_some_and(|e| e.view.view.deleting),
                    ManagedKind::Pod => {
                        views.pods.get(&self.owner, &self.name).is_some_and(|e| e.view.deleting)
                    }
                    _ => false,
                };
                known.is_none_or(|k| k.uid != *uid) || deleting()
            }
        }
    }
}
