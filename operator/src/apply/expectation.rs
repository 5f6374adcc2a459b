//! A write that the watch shall bring back: planning waits for it, so that nothing is done twice.

use std::time::Duration;

use slipway_cluster_views::{ClusterViews, ObjectOwner};
use slipway_objects::ManagedKind;

/// How long a plan waits for the watch to bring back what was written. A watch that is slower than
/// this is broken, and the preconditions of the writes keep a stale plan harmless.
pub(crate) const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(2);

/// A write that the watch shall bring back.
#[derive(Clone, Debug)]
pub struct WriteExpectation {
    /// Kind.
    pub child: ManagedKind,
    /// To whom it belongs.
    pub owner: ObjectOwner,
    /// Name.
    pub name: String,
    /// What is awaited.
    pub awaited: AwaitedState,
}

/// What is awaited of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwaitedState {
    /// This resource version or a later one.
    Version(u64),
    /// No object of this UID that is not being deleted.
    Deleted(String),
}

impl WriteExpectation {
    /// Whether the caches have it.
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
