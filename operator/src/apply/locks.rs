//! Turns at the shared objects of a namespace.

use std::collections::HashMap;
use std::time::Instant;

use slipway_objects::ManagedKind;
use tokio::sync::{Mutex, MutexGuard};

use crate::apply::expectation::EXPECTATION_TIMEOUT;

/// Turns at the shared objects of a namespace, and what was written to them last.
#[derive(Default)]
pub struct NamespaceLocks {
    /// Namespaces that fall together only wait for each other a little.
    shards: [Mutex<RecentApplies>; 16],
}

pub(crate) type RecentApplies = HashMap<(String, ManagedKind), LastApply>;

/// The last write to a shared object, which the watch may not have brought back yet.
#[derive(Clone)]
pub(crate) struct LastApply {
    pub(crate) uid: String,
    /// Stamp of what was written.
    pub(crate) applied: String,
    pub(crate) version: u64,
    pub(crate) at: Instant,
    /// Its owners were taken away: there are too many.
    pub(crate) disowned: bool,
}

impl NamespaceLocks {
    /// Waits for the turn at the shared objects of a namespace.
    pub(crate) async fn lock(&self, namespace: &str) -> MutexGuard<'_, RecentApplies> {
        let sum =
            namespace.bytes().fold(0_usize, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        let mut turn = self.shards[sum % self.shards.len()].lock().await;
        turn.retain(|_, last| last.at.elapsed() < EXPECTATION_TIMEOUT);
        turn
    }
}
