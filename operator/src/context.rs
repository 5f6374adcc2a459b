//! What all reconciles share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::cache::Owner;
use crate::children::Expectations;
use crate::disturbances::Disturbances;
use crate::events::Events;
use crate::gateway_link::Links;
use crate::main_watch::Guarded;
use crate::metrics_source::Poller;
use crate::own_writes::OwnWrites;
use crate::refusals::Refusals;
use crate::status::Waiting;
use crate::telemetry::Metrics;
use crate::views::Views;

/// Handles and memory of the process. Nothing here is needed after a restart: all progress of rollouts is in statuses.
pub struct Context {
    /// Client.
    pub client: Client,
    /// Caches.
    pub views: Arc<Views>,
    /// Streams to gateways.
    pub links: Arc<Links>,
    /// Poller of metrics.
    pub poller: Arc<Poller>,
    /// Publisher of events.
    pub events: Events,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Settings that plans depend on, by namespace.
    pub settings: crate::namespace_settings::NamespaceSettings,
    /// Waits after failures.
    pub backoff: Backoff,
    /// Writes that are refused.
    pub refusals: Refusals,
    /// What others do to our objects.
    pub disturbances: Disturbances,
    /// Statuses that we wrote.
    pub own: Arc<OwnWrites>,
    /// Children that we wrote.
    pub expectations: Expectations,
    /// Statuses that wait.
    pub waiting: Waiting,
    /// Turns at shared objects.
    pub turns: crate::put::Turns,
    /// The keys of namespaces.
    pub keys: crate::keys::NamespaceKeys,
    /// Who looks after which namespace.
    pub leases: crate::namespace_lease::NamespaceLeases,
    /// Reconciles that run.
    pub running: Arc<Running>,
    /// The end.
    pub stop: CancellationToken,
}

impl Context {
    /// Waits until a plan sees everything: the objects, and the settings of namespaces. False: it never will.
    pub async fn wait_until_synced(&self) -> bool {
        self.views.wait_until_synced().await && self.settings.wait_until_synced().await
    }

    /// Has all ModelDeployments of a namespace looked at.
    pub fn trigger_namespace(&self, namespace: &str, triggers: &UnboundedSender<ObjectRef<Guarded>>) {
        for name in self.views.models.models_where(namespace, |_| true) {
            // The receiver is gone only when the operator ends.
            let _ = triggers.send(ObjectRef::new(&name).within(namespace));
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str, object: &ObjectRef<Guarded>) {
        self.poller.ask(uid, object, None);
        self.links.set_draining(uid, std::collections::BTreeSet::new());
        self.backoff.reset(uid);
        self.refusals.forget(uid);
        self.disturbances.forget(&Owner::model(object.namespace.as_deref().unwrap_or_default(), &object.name));
        self.own.forget(uid);
        self.expectations.forget(uid);
        self.waiting.done(uid);
        self.leases.forget_told(uid);
        self.metrics.conditions.forget(uid);
    }
}

/// Reconciles that run, for the liveness probe: one that never ends means that the process must.
#[derive(Default)]
pub struct Running {
    next: AtomicU64,
    since: Mutex<HashMap<u64, Instant>>,
}

impl Running {
    /// Notes a reconcile until the guard is dropped.
    pub fn start(self: &Arc<Self>) -> RunningGuard {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.since.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
        RunningGuard { running: Arc::clone(self), id }
    }

    /// How long the oldest reconcile runs.
    pub fn oldest(&self) -> Option<Duration> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.values().map(Instant::elapsed).max()
    }
}

/// Notes the end of a reconcile.
pub struct RunningGuard {
    running: Arc<Running>,
    id: u64,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.running.since.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
