//! What all reconciles share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::backoff::ObjectBackoff;
use crate::cache::ObjectOwner;
use crate::children::WriteExpectations;
use crate::disturbances::DisturbanceLog;
use crate::events::EventPublisher;
use crate::gateway_link::GatewayStreams;
use crate::metrics::OperatorMetrics;
use crate::metrics_source::EvidencePoller;
use crate::model_watch::GuardedModel;
use crate::own_writes::OwnWrites;
use crate::refusals::RefusedWrites;
use crate::status::StatusDebounce;
use crate::views::ClusterViews;

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
    pub settings: crate::namespace_settings::NamespaceSettings,
    /// Waits after failures.
    pub backoff: ObjectBackoff,
    /// Writes that are refused.
    pub refusals: RefusedWrites,
    /// What others do to our objects.
    pub disturbances: DisturbanceLog,
    /// Statuses that we wrote.
    pub own_writes: Arc<OwnWrites>,
    /// Children that we wrote.
    pub expectations: WriteExpectations,
    /// Statuses that wait.
    pub status_debounce: StatusDebounce,
    /// Turns at shared objects.
    pub namespace_locks: crate::server_side_apply::NamespaceLocks,
    /// The keys of namespaces.
    pub keys: crate::keys::NamespaceKeys,
    /// Who looks after which namespace.
    pub leases: crate::namespace_lease::NamespaceLeases,
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

    /// Has all ModelDeployments of a namespace looked at.
    pub fn trigger_namespace(
        &self,
        namespace: &str,
        triggers: &UnboundedSender<ObjectRef<GuardedModel>>,
    ) {
        for name in self.views.models.models_where(namespace, |_| true) {
            // The receiver is gone only when the operator ends.
            let _ = triggers.send(ObjectRef::new(&name).within(namespace));
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str, object: &ObjectRef<GuardedModel>) {
        self.poller.set_request(uid, object, None);
        self.gateway_streams.set_draining(uid, std::collections::BTreeSet::new());
        self.backoff.reset(uid);
        self.refusals.forget(uid);
        self.disturbances.forget(&ObjectOwner::model(
            object.namespace.as_deref().unwrap_or_default(),
            &object.name,
        ));
        self.own_writes.forget(uid);
        self.expectations.forget(uid);
        self.status_debounce.clear(uid);
        self.leases.forget_holder(uid);
        self.metrics.conditions.forget(uid);
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
        self.since.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
        RunningGuard { running: Arc::clone(self), id }
    }

    /// How long the oldest reconcile runs.
    pub fn oldest_age(&self) -> Option<Duration> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.running.since.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
