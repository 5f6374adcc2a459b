//! What every watch, and every loop beside the reconciles, needs.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use slipway_cluster_views::{ClusterViews, ReconcileTrigger};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::metrics::OperatorMetrics;

/// Handles of a watch.
#[derive(Clone)]
pub struct WatchContext {
    /// Client.
    pub client: Client,
    /// The one namespace that is watched, or all.
    pub namespace: Option<String>,
    /// Caches.
    pub views: Arc<ClusterViews>,
    /// Metrics.
    pub metrics: Arc<OperatorMetrics>,
    /// Gets the ModelDeployments that are to be reconciled.
    pub triggers: UnboundedSender<ReconcileTrigger>,
    /// The end.
    pub stop: CancellationToken,
}

impl WatchContext {
    /// Objects of a kind that are watched.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Has all ModelDeployments of a namespace looked at.
    pub fn trigger_namespace(&self, namespace: &str) {
        for name in self.views.models.models_where(namespace, |_| true) {
            // The receiver is gone only when the operator ends.
            let _ = self.triggers.send(ReconcileTrigger::new(&name).within(namespace));
        }
    }
}

/// An event of a watch; an error of it is counted and logged.
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
