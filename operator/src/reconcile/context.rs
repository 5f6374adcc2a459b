//! The context that all reconciles share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kube::Client;
use parking_lot::Mutex;
use slipway_cluster_views::{ClusterViews, ModelMemory, ObjectOwner, OwnWrites};
use slipway_evidence::EvidencePoller;
use slipway_gateway_streams::GatewayStreams;
use tokio_util::sync::CancellationToken;

use crate::apply::events::EventPublisher;
use crate::apply::locks::NamespaceLocks;
use crate::metrics::OperatorMetrics;
use crate::namespaces::keys::NamespaceKeys;
use crate::namespaces::leases::NamespaceLeases;
use crate::namespaces::settings::NamespaceSettings;
use crate::reconcile::memory::{DisturbanceLog, ObjectMemories};

/// Handles and in-memory state of the process. None of it is needed after a restart, because
/// statuses contain all progress of rollouts.
pub struct ReconcileContext {
    pub client: Client,
    pub views: Arc<ClusterViews>,
    pub gateway_streams: Arc<GatewayStreams>,
    pub poller: Arc<EvidencePoller>,
    pub events: EventPublisher,
    pub metrics: Arc<OperatorMetrics>,
    /// Settings that plans depend on, by namespace.
    pub settings: Arc<NamespaceSettings>,
    /// In-memory state of each ModelDeployment.
    pub memories: ObjectMemories,
    /// Changes of other clients to objects of the operator.
    pub disturbances: DisturbanceLog,
    /// Statuses that this process has written.
    pub own_writes: Arc<OwnWrites>,
    /// Locks for shared objects.
    pub namespace_locks: NamespaceLocks,
    pub keys: NamespaceKeys,
    /// Which operator holds each namespace.
    pub leases: Arc<NamespaceLeases>,
    /// Running reconciles.
    pub running: Arc<RunningReconciles>,
    /// Cancelled at shutdown.
    pub stop: CancellationToken,
}

impl ReconcileContext {
    /// Waits until the caches contain all objects and the settings of namespaces. Returns false
    /// when they never will.
    pub async fn wait_until_synced(&self) -> bool {
        self.views.wait_until_synced().await && self.settings.wait_until_synced().await
    }

    /// Forgets a ModelDeployment that is gone, or is left to another operator.
    pub fn forget(&self, uid: &str, owner: &ObjectOwner) {
        for memory in self.model_memories() {
            memory.forget(uid, owner);
        }
    }

    /// Everything that keeps state of ModelDeployments. All fields are named: whoever adds one
    /// decides here whether it is such a memory.
    fn model_memories(&self) -> [&dyn ModelMemory; 6] {
        let Self {
            gateway_streams,
            poller,
            metrics,
            memories,
            disturbances,
            own_writes,
            // Of the process or of namespaces, or expires by itself, or follows a watch.
            client: _,
            views: _,
            events: _,
            settings: _,
            namespace_locks: _,
            keys: _,
            leases: _,
            running: _,
            stop: _,
        } = self;
        [
            gateway_streams.as_ref(),
            poller.as_ref(),
            &metrics.conditions,
            memories,
            disturbances,
            own_writes.as_ref(),
        ]
    }
}

/// The running reconciles, for the liveness probe: the process must be restarted when one never
/// ends.
#[derive(Default)]
pub struct RunningReconciles {
    next: AtomicU64,
    since: Mutex<HashMap<u64, Instant>>,
}

impl RunningReconciles {
    /// Registers a reconcile until the guard is dropped.
    pub fn start(self: &Arc<Self>) -> RunningGuard {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.since.lock().insert(id, Instant::now());
        RunningGuard { running: Arc::clone(self), id }
    }

    /// Running time of the oldest reconcile.
    pub fn oldest_age(&self) -> Option<Duration> {
        let since = self.since.lock();
        since.values().map(Instant::elapsed).max()
    }
}

/// Removes the reconcile from the registry when dropped.
pub struct RunningGuard {
    running: Arc<RunningReconciles>,
    id: u64,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.running.since.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
