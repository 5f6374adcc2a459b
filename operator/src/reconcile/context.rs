//! What all reconciles share.

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

/// Handles and memory of the process. Nothing here is needed after a restart: all progress of
/// rollouts is in statuses.
pub struct ReconcileContext {
    /// Client.
    pub client: Client,
    /// Caches.
    pub views: Arc<ClusterViews>,
    /// Streams to gateways.
    pub gateway_streams: Arc<GatewayStreams>,
    /// Poller of metrics.
    pub poller: Arc<EvidencePoller>,
    /// Publisher of events.
    pub events: EventPublisher,
    /// Metrics.
    pub metrics: Arc<OperatorMetrics>,
    /// Settings that plans depend on, by namespace.
    pub settings: Arc<NamespaceSettings>,
    /// What is remembered of each ModelDeployment.
    pub memories: ObjectMemories,
    /// What others do to our objects.
    pub disturbances: DisturbanceLog,
    /// Statuses that we wrote.
    pub own_writes: Arc<OwnWrites>,
    /// Turns at shared objects.
    pub namespace_locks: NamespaceLocks,
    /// The keys of namespaces.
    pub keys: NamespaceKeys,
    /// Who looks after which namespace.
    pub leases: Arc<NamespaceLeases>,
    /// Reconciles that run.
    pub running: Arc<RunningReconciles>,
    /// The end.
    pub stop: CancellationToken,
}

impl ReconcileContext {
    /// Waits until a plan sees everything: the objects, and the settings of namespaces. False: it
    /// never will.
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

/// Reconciles that run, for the liveness probe: one that never ends means that the process must.
#[derive(Default)]
pub struct RunningReconciles {
    next: AtomicU64,
    since: Mutex<HashMap<u64, Instant>>,
}

impl RunningReconciles {
    /// Notes a reconcile until the guard is dropped.
    pub fn start(self: &Arc<Self>) -> RunningGuard {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.since.lock().insert(id, Instant::now());
        RunningGuard { running: Arc::clone(self), id }
    }

    /// How long the oldest reconcile runs.
    pub fn oldest_age(&self) -> Option<Duration> {
        let since = self.since.lock();
        since.values().map(Instant::elapsed).max()
    }
}

/// Notes the end of a reconcile.
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
