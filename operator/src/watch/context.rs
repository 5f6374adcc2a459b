//! The context of watches and of the loops beside the reconciles.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use slipway_cluster_views::{ClusterViews, ReconcileTrigger};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::metrics::OperatorMetrics;

/// The handles that a watch needs.
#[derive(Clone)]
pub struct WatchContext {
    pub client: Client,
    /// The one watched namespace; all when `None`.
    pub namespace: Option<String>,
    pub views: Arc<ClusterViews>,
    pub metrics: Arc<OperatorMetrics>,
    /// Receives the ModelDeployments to reconcile.
    pub triggers: UnboundedSender<ReconcileTrigger>,
    /// Cancelled at shutdown.
    pub stop: CancellationToken,
}

impl WatchContext {
    /// The API of a kind, restricted to the watched namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Triggers a reconcile of all ModelDeployments of a namespace.
    pub fn trigger_namespace(&self, namespace: &str) {
        for name in self.views.models.models_where(namespace, |_| true) {
            // The receiver is dropped only at shutdown.
            let _ = self.triggers.send(ReconcileTrigger::new(&name).within(namespace));
        }
    }
}

/// Returns the event of a watch; counts and logs an error.
pub fn ok_or_log<K>(
    event: Result<Event<K>, watcher::Error>,
    metrics: &OperatorMetrics,
) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()>,
{
    match event {
        Ok(event) => Some(event),
        Err(error) => {
            metrics.watch_errors.inc();
            tracing::warn!(kind = %K::kind(&()), %error, "watch ended and starts again");
            None
        }
    }
}
