//! Locks for the objects that the ModelDeployments of a namespace share.

use std::collections::HashMap;
use std::time::Instant;

use slipway_objects::ManagedKind;
use tokio::sync::{Mutex, MutexGuard};

use crate::apply::expectation::EXPECTATION_TIMEOUT;

/// A lock for the shared objects of each namespace, with the last write to each of them.
#[derive(Default)]
pub struct NamespaceLocks {
    /// Namespaces that share a shard only wait for each other briefly.
    shards: [Mutex<RecentApplies>; 16],
}

pub(crate) type RecentApplies = HashMap<(String, ManagedKind), LastApply>;

/// The last write to a shared object, which the watch may not have reported yet.
#[derive(Clone)]
pub(crate) struct LastApply {
    pub(crate) uid: String,
    /// Hash of the content that was written.
    pub(crate) applied: String,
    pub(crate) version: u64,
    pub(crate) at: Instant,
    /// Its owner references were removed because there were too many.
    pub(crate) disowned: bool,
}

impl NamespaceLocks {
    /// Waits for the lock of a namespace's shared objects.
    pub(crate) async fn lock(&self, namespace: &str) -> MutexGuard<'_, RecentApplies> {
        let sum =
            namespace.bytes().fold(0_usize, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        let mut turn = self.shards[sum % self.shards.len()].lock().await;
        turn.retain(|_, last| last.at.elapsed() < EXPECTATION_TIMEOUT);
        turn
    }
}
