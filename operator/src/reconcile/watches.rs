//! All watches, with the reason for each.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use slipway_cluster_views::{
    CachedPod, ClusterViews, FieldSets, GuardedModel, ObjectFingerprint, ObjectOwner, ViewCache,
    ViewChange, autoscaler_view, cached_pod, cached_replica_set, deployment_view, object_view,
};
use slipway_core::observed::ObjectView;
use slipway_crds::labels;
use slipway_objects::{ManagedKind, ObjectTarget};

use crate::reconcile::context::ReconcileContext;
use crate::watch::context::{WatchContext, ok_or_log};
use crate::watch::model_events::apply_model_event;
use crate::watch::size_limit;
use crate::watch::stream::{SharedView, TriggerStream, watch_selected};

/// ModelDeployments per page of a list. Smaller than for other kinds, because each object may have
/// the 1.5 MB that etcd allows before it is rejected as too large.
const MODEL_PAGE_SIZE: u32 = 25;

/// Watches ModelDeployments: specs, user commands, statuses written by others.
pub(crate) fn watch_models(
    watch: &WatchContext,
    ctx: &Arc<ReconcileContext>,
    writer: reflector::store::Writer<GuardedModel>,
) -> TriggerStream {
    let ctx = Arc::clone(ctx);
    watcher::watcher(
        watch.api::<GuardedModel>(),
        watcher::Config::default().page_size(MODEL_PAGE_SIZE),
    )
    .default_backoff()
    // Of the managed fields, only these entries are needed: they show whether an autoscaler wrote
    // `spec.replicas`.
    .modify(|object| {
        object.managed_fields_mut().retain(|entry| entry.subresource.as_deref() == Some("scale"));
        size_limit::reject_too_large(object);
    })
    .reflect(writer)
    .filter_map({
        let ctx = Arc::clone(&ctx);
        move |event| std::future::ready(ok_or_log(event, &ctx.metrics))
    })
    .flat_map(move |event| {
        let (changes, mut triggers) = apply_model_event(&ctx.views, &ctx.own_writes, event);
        for change in changes {
            let object = ObjectRef::new(&change.name).within(&change.owner.namespace);
            let uid = |p: &Option<ObjectFingerprint>| p.as_ref().map(|p| p.uid.clone());
            match (uid(&change.before), uid(&change.after)) {
                (Some(before), after) if Some(&before) != after.as_ref() => {
                    ctx.forget(&before, &change.owner)
                }
                _ => {}
            }
            if change.after.is_some() {
                triggers.push(object);
            }
        }
        stream::iter(triggers)
    })
    .boxed()
}

/// Watches children: only objects with our labels, and for most kinds only the metadata.
pub(crate) fn watch_children(watch: &WatchContext, ctx: &Arc<ReconcileContext>) -> TriggerStream {
    let mut all: Vec<TriggerStream> = Vec::new();
    // Pod counts, and ReplicaSets that other clients scaled or deleted.
    all.push(watch_managed(
        watch,
        ctx,
        |v| &v.replica_sets,
        |o: &ReplicaSet, fields| {
            Some((ObjectOwner::from_labels(o)?, cached_replica_set(o, fields)?))
        },
    ));
    // Pods that cannot start, and gateway pods that are created or deleted.
    let selector = format!(
        "{}={},{} in ({},{})",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::COMPONENT,
        labels::COMPONENT_RUNTIME,
        labels::COMPONENT_GATEWAY
    );
    let pods = |o: &Pod, _: &FieldSets| Some((ObjectOwner::from_labels(o)?, cached_pod(o)?));
    let streams = Arc::clone(&ctx.gateway_streams);
    let follow = move |change: &ViewChange<CachedPod>| {
        if change.owner.model.is_none() {
            streams.follow(change);
        }
    };
    all.push(watch_selected(watch, &selector, |v| &v.pods, pods, follow));
    // Distinguishes gateway pods from other pods with the labels of gateways.
    let selector = format!(
        "{}={},{}={}",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::COMPONENT,
        labels::COMPONENT_GATEWAY
    );
    let sets = |o: &PartialObjectMeta<ReplicaSet>, fields: &FieldSets| {
        Some((ObjectOwner::from_labels(o)?, object_view(o, fields)?))
    };
    all.push(watch_selected(watch, &selector, |v| &v.gateway_sets, sets, |_| {}));
    // Deployments: also the reason why Kubernetes creates no pods for them.
    let deployments = |o: &Deployment, fields: &FieldSets| {
        Some((ObjectOwner::from_labels(o)?, deployment_view(o, fields)?))
    };
    all.push(watch_managed(watch, ctx, |v| &v.deployments, deployments));
    // Autoscalers: also the number of replicas they request, which is not visible elsewhere while
    // it equals `spec.replicas`.
    let autoscalers = |o: &HorizontalPodAutoscaler, fields: &FieldSets| {
        Some((ObjectOwner::from_labels(o)?, autoscaler_view(o, fields)?))
    };
    all.push(watch_managed(watch, ctx, |v| &v.autoscalers, autoscalers));
    // The other kinds: only whether an object exists and who applied it last, which the metadata
    // contains (`managedFields`).
    all.push(watch_metadata::<Service>(watch, ctx, |v| &v.services));
    all.push(watch_metadata::<PodDisruptionBudget>(watch, ctx, |v| &v.disruption_budgets));
    all.push(watch_metadata::<ServiceAccount>(watch, ctx, |v| &v.service_accounts));
    all.push(watch_metadata::<RoleBinding>(watch, ctx, |v| &v.role_bindings));
    all.push(watch_metadata::<NetworkPolicy>(watch, ctx, |v| &v.network_policies));
    stream::select_all(all).boxed()
}

fn watch_metadata<K>(
    watch: &WatchContext,
    ctx: &Arc<ReconcileContext>,
    cache: fn(&ClusterViews) -> &ViewCache<ObjectView>,
) -> TriggerStream
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let view = |o: &PartialObjectMeta<K>, fields: &FieldSets| {
        Some((ObjectOwner::from_labels(o)?, object_view(o, fields)?))
    };
    watch_managed(watch, ctx, cache, view)
}

fn watch_managed<K, V>(
    watch: &WatchContext,
    ctx: &Arc<ReconcileContext>,
    cache: fn(&ClusterViews) -> &ViewCache<V>,
    view: impl Fn(&K, &FieldSets) -> Option<(ObjectOwner, V)> + Send + 'static,
) -> TriggerStream
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
    V: SharedView + Clone + PartialEq + Send + Sync + 'static,
{
    let (ctx, kind) = (Arc::clone(ctx), ManagedKind::from_name(&K::kind(&())));
    let gone = move |change: &ViewChange<V>| {
        if let Some(kind) = kind
            && change.after.is_none()
            && is_wanted(&ctx.views, &change.owner)
        {
            ctx.disturbances.record_removed(&change.owner, ObjectTarget::new(kind, &change.name));
        }
    };
    watch_selected(watch, &format!("{}={}", labels::MANAGED_BY, labels::MANAGER), cache, view, gone)
}

/// A deleted object is restored only if there is a ModelDeployment that needs it.
fn is_wanted(views: &ClusterViews, owner: &ObjectOwner) -> bool {
    match &owner.model {
        Some(name) => views.models.get(owner, name).is_some(),
        None => !views.models.models_where(&owner.namespace, |_| true).is_empty(),
    }
}
