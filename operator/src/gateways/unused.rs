//! Deletes gateways that no ModelDeployment uses any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use slipway_cluster_views::{ClusterViews, ObjectOwner, ViewCache};
use slipway_core::observed::ObjectView;
use slipway_objects::{GATEWAY, ManagedKind, with_kind_type};
use tokio::time::Instant;

use crate::apply::{WriteError, WriteFault, with_timeout};
use crate::watch::context::WatchContext;

/// How long the gateway of a namespace without ModelDeployments is kept, so that a ModelDeployment
/// that is replaced (`kubectl replace --force`) finds it again.
const UNUSED_GRACE_PERIOD: Duration = Duration::from_secs(60);

/// Kinds of a gateway's objects, in deletion order.
const GATEWAY_KINDS: [ManagedKind; 7] = [
    ManagedKind::Deployment,
    ManagedKind::HorizontalPodAutoscaler,
    ManagedKind::PodDisruptionBudget,
    ManagedKind::Service,
    ManagedKind::NetworkPolicy,
    ManagedKind::RoleBinding,
    ManagedKind::ServiceAccount,
];

/// For each namespace with a gateway and without ModelDeployments: since when this is the case.
#[derive(Default)]
pub(crate) struct UnusedGateways {
    since: BTreeMap<String, Instant>,
}

impl UnusedGateways {
    /// Namespaces whose gateway has been unused for [`UNUSED_GRACE_PERIOD`] and has objects without
    /// owners, which the garbage collector therefore does not delete.
    pub(crate) fn poll(&mut self, views: &ClusterViews, now: Instant) -> Vec<String> {
        let left = |cache: &ViewCache<ObjectView>| {
            let all = cache.gateways().into_iter();
            all.filter(|(_, view)| view.owners.is_empty())
                .map(|(namespace, _)| namespace)
                .collect::<Vec<_>>()
        };
        let caches = GATEWAY_KINDS.into_iter().filter_map(|kind| views.object_views(kind));
        let all: BTreeSet<String> = caches.flat_map(left).collect();
        let unused: BTreeSet<String> =
            all.into_iter().filter(|namespace| !views.models.has_models(namespace)).collect();
        self.since.retain(|namespace, _| unused.contains(namespace));
        for namespace in unused {
            self.since.entry(namespace).or_insert(now);
        }
        self.since
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= UNUSED_GRACE_PERIOD)
            .map(|(it, _)| it.clone())
            .collect()
    }
}

/// Deletes the gateway's objects that have no owner.
pub(crate) async fn delete_gateway(ctx: &WatchContext, namespace: &str) -> Result<(), WriteError> {
    tracing::info!(namespace, "the gateway has no ModelDeployment any more and is deleted");
    for kind in GATEWAY_KINDS {
        with_kind_type!(kind, K => delete_orphan::<K>(ctx, namespace, kind).await)?;
    }
    Ok(())
}

async fn delete_orphan<K>(
    ctx: &WatchContext,
    namespace: &str,
    child: ManagedKind,
) -> Result<(), WriteError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let there = ctx.views.known_object(child, &ObjectOwner::gateway(namespace), GATEWAY);
    let Some(known) = there.filter(|known| known.owners.is_empty()) else { return Ok(()) };
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(known.uid),
            // The observed version: the object stays if it has gained an owner since.
            resource_version: Some(known.version.to_string()),
        }),
        ..DeleteParams::background()
    };
    let api = Api::<K>::namespaced(ctx.client.clone(), namespace);
    match with_timeout("delete", child.kind_name(), GATEWAY, api.delete(GATEWAY, &params)).await {
        Ok(_)
        | Err(WriteError { fault: WriteFault::NotFound(_) | WriteFault::Conflict(_), .. }) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
