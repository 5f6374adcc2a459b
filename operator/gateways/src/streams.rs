//! The streams to all gateway pods: opens and closes them, and returns their reports.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::metrics::gauge::Gauge;
use slipway_cluster_views::{CachedPod, ModelMemory, ObjectOwner, ReconcileTrigger, ViewChange};
use slipway_core::gateway_rollout::ClientRequests;
use slipway_core::observed::{GatewayReport, UnreachableGateway};
use slipway_listener::OperatorKey;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::maintain_stream;
use crate::state::{GatewayEndpoint, GatewayLookup, PodReports, StreamState};

/// The streams to all gateway pods.
pub struct GatewayStreams {
    shared: Arc<StreamState>,
    streams: RwLock<HashMap<String, CancellationToken>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl GatewayStreams {
    /// Creates an instance without streams. `triggers` receives the ModelDeployments whose reports
    /// changed, and `open_streams` counts the open streams. All streams end with `stop`.
    pub fn new(
        triggers: UnboundedSender<ReconcileTrigger>,
        open_streams: Gauge,
        gateways: Arc<dyn GatewayLookup>,
        stop: CancellationToken,
        port: u16,
        key: Option<OperatorKey>,
    ) -> Self {
        let (reports, unreachable, draining) =
            (RwLock::default(), RwLock::default(), RwLock::default());
        let clients = RwLock::default();
        let shared = StreamState {
            reports,
            unreachable,
            clients,
            draining,
            triggers,
            open_streams,
            gateways,
            port,
            key,
        };
        let shared = Arc::new(shared);
        Self { shared, streams: RwLock::default(), tasks: TaskTracker::new(), stop }
    }

    /// Follows a gateway pod: its stream starts when the pod is ready and stays until the pod is
    /// deleted. A terminating pod still finishes connections, and its traffic must be known until
    /// the end.
    pub fn follow(&self, change: &ViewChange<CachedPod>) {
        let address = |view: &Option<CachedPod>| {
            let view = view.as_ref()?;
            Some((view.uid.clone(), view.ip.as_deref()?.parse::<IpAddr>().ok()?))
        };
        let (before, after) = (address(&change.before), address(&change.after));
        if let Some((uid, _)) = before.filter(|before| Some(before) != after.as_ref()) {
            self.close_stream(&uid);
        }
        let serves = change.after.as_ref().is_some_and(|view| view.ready || view.deleting);
        if let Some((uid, ip)) = after.filter(|(uid, _)| serves && !self.has_stream(uid)) {
            self.open_stream(GatewayEndpoint {
                uid,
                namespace: change.owner.namespace.clone(),
                name: change.name.clone(),
                ip,
            });
        }
    }

    fn has_stream(&self, pod_uid: &str) -> bool {
        self.streams.read().contains_key(pod_uid)
    }

    /// The newest report of a pod about a ModelDeployment, while the stream to the pod is open.
    pub fn report(&self, pod_uid: &str, model_uid: &str) -> Option<GatewayReport> {
        let reports = self.shared.reports.read();
        reports.get(pod_uid)?.get(model_uid).map(|(_, report)| report.clone())
    }

    /// Namespace and client request counts of each pod that reports them, by UID.
    pub fn client_requests(&self) -> HashMap<String, (String, ClientRequests)> {
        self.shared.clients.read().clone()
    }

    /// Since when and why the stream to a pod is not open.
    pub fn unreachable(&self, pod_uid: &str) -> Option<UnreachableGateway> {
        self.shared.unreachable.read().get(pod_uid).cloned()
    }

    /// Sets the revisions of a ModelDeployment that get no traffic: the end of their last request
    /// triggers a reconcile.
    pub fn set_draining(&self, model_uid: &str, revisions: BTreeSet<String>) {
        let mut draining = self.shared.draining.write();
        if revisions.is_empty() {
            draining.remove(model_uid);
        } else {
            draining.insert(model_uid.to_owned(), revisions);
        }
    }

    /// Closes all streams and waits for their tasks.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn open_stream(&self, pod: GatewayEndpoint) {
        let token = self.stop.child_token();
        let mut streams = self.streams.write();
        if let Some(former) = streams.insert(pod.uid.clone(), token.clone()) {
            former.cancel();
        }
        drop(streams);
        self.shared.reports.write().insert(pod.uid.clone(), PodReports::new());
        self.shared.mark_unreachable(&pod, "there is no connection yet");
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            token.run_until_cancelled(maintain_stream(&shared, &pod)).await;
        });
    }

    fn close_stream(&self, pod_uid: &str) {
        if let Some(token) = self.streams.write().remove(pod_uid) {
            token.cancel();
        }
        // The change of the pod itself triggers the reconciles; here only its reports must be
        // removed.
        self.shared.reports.write().remove(pod_uid);
        self.shared.unreachable.write().remove(pod_uid);
        self.shared.clients.write().remove(pod_uid);
    }
}

/// Of the revisions that get no traffic. Reports go with the pods that sent them.
impl ModelMemory for GatewayStreams {
    fn forget(&self, uid: &str, _: &ObjectOwner) {
        self.shared.draining.write().remove(uid);
    }

    fn remembers(&self, uid: &str, _: &ObjectOwner) -> bool {
        self.shared.draining.read().contains_key(uid)
    }
}

#[cfg(test)]
mod tests;
