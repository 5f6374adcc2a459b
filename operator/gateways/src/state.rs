//! State that all streams share: the newest reports, and the unreachable pods.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use prometheus_client::metrics::gauge::Gauge;
use slipway_cluster_views::{ClusterViews, ObjectOwner, ReconcileTrigger};
use slipway_core::gateway_rollout::ClientRequests;
use slipway_core::observed::{GatewayReport, UnreachableGateway};
use slipway_listener::OperatorKey;
use tokio::sync::mpsc::UnboundedSender;

/// The cluster state that the streams need. The operator connects to a pod only while it is a
/// gateway, because any client can set the labels of one on its own pod.
pub trait GatewayLookup: Send + Sync {
    /// Whether the pod of this name and UID belongs to the operator's gateway Deployment.
    fn is_gateway(&self, namespace: &str, name: &str, uid: &str) -> bool;
    /// Number of ModelDeployments in a namespace.
    fn count_models(&self, namespace: &str) -> usize;
}

impl GatewayLookup for ClusterViews {
    fn is_gateway(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let pod = self.pods.get(&ObjectOwner::gateway(namespace), name);
        pod.is_some_and(|pod| pod.view.uid == uid && Self::is_gateway(self, namespace, &pod.view))
    }

    fn count_models(&self, namespace: &str) -> usize {
        self.models.count_models(namespace)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct GatewayEndpoint {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
}

/// The reports of one pod, by UID of the ModelDeployment: its name, and the report.
pub(crate) type PodReports = HashMap<String, (String, GatewayReport)>;

pub(crate) struct StreamState {
    pub(crate) reports: RwLock<HashMap<String, PodReports>>,
    /// Pods without an open stream, by UID.
    pub(crate) unreachable: RwLock<HashMap<String, UnreachableGateway>>,
    /// Namespace and client request counts of each pod, by UID.
    pub(crate) clients: RwLock<HashMap<String, (String, ClientRequests)>>,
    /// Revisions without traffic, by UID of the ModelDeployment.
    pub(crate) draining: RwLock<HashMap<String, BTreeSet<String>>>,
    pub(crate) triggers: UnboundedSender<ReconcileTrigger>,
    /// Number of open streams.
    pub(crate) open_streams: Gauge,
    pub(crate) gateways: Arc<dyn GatewayLookup>,
    pub(crate) port: u16,
    /// Signs the requests to gateways.
    pub(crate) key: Option<OperatorKey>,
}

impl StreamState {
    /// Records why the stream to a pod is not open. The start time is kept, unless the stream was
    /// open until now.
    pub(crate) fn mark_unreachable(&self, pod: &GatewayEndpoint, why: &str) {
        let error = format!("{}: {why}", SocketAddr::new(pod.ip, self.port));
        let mut all = self.unreachable.write();
        let entry = all.entry(pod.uid.clone());
        entry
            .and_modify(|known| known.error.clone_from(&error))
            .or_insert_with(|| UnreachableGateway { since: Timestamp::now(), error });
    }

    pub(crate) fn mark_reachable(&self, pod: &GatewayEndpoint) {
        self.unreachable.write().remove(&pod.uid);
    }
}
