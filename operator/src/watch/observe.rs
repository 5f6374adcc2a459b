//! Assembles the plan's input for one ModelDeployment from the caches. All functions are pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use slipway_cluster_views::{CachedPod, CachedReplicaSet, ClusterViews, ObjectOwner, ViewCache};
use slipway_core::observed::{
    GatewayPod, GatewayReport, GatewayView, ObjectDisturbance, ObjectView, ObservedState, PodView,
    ReplicaSetView, UnreachableGateway,
};
use slipway_core::refusal::{RefusalReport, WriteTarget};
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_judge::evidence::GateEvidence;
use slipway_objects::settings::PlanSettings;
use slipway_objects::{GATEWAY, ManagedKind, ObjectTarget, revision_name};

/// The report of a gateway pod about a ModelDeployment, and why the pod is unreachable if it is.
pub type ReportOrError = (Option<GatewayReport>, Option<UnreachableGateway>);

/// Assembles the plan's input for one ModelDeployment. `heard` returns the newest report of a
/// gateway pod by the pod's UID.
pub fn observe_model(
    object: ModelDeployment,
    views: &ClusterViews,
    report_of: impl Fn(&str) -> ReportOrError,
    evidence: Option<GateEvidence>,
    refusals: Option<BTreeMap<WriteTarget, RefusalReport>>,
    disturbances: BTreeMap<ObjectTarget, ObjectDisturbance>,
    settings: &PlanSettings,
) -> ObservedState {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let uid = object.uid().unwrap_or_default();
    let owner = ObjectOwner::model(&namespace, &name);
    let kept = views.pods.owned_by(&owner);
    let seen = kept.iter().map(|(name, e)| pod_view(name, &e.view)).collect();
    let pods: Vec<CachedPod> = kept.into_values().map(|e| e.view).collect();
    let replica_sets = views.replica_sets.owned_by(&owner).into_values();
    ObservedState {
        replica_sets: replica_sets.map(|e| resolve_ownership(e.view, &name, &uid)).collect(),
        children: object_views(views)
            .flat_map(|(kind, cache)| {
                let children = cache.owned_by(&owner).into_iter();
                children.map(move |(name, e)| (ObjectTarget { kind, name }, e.view))
            })
            .collect(),
        gateway: gateway_view(views, &namespace, report_of),
        pods: seen,
        fetched_models: pods.iter().filter_map(|pod| pod.fetched.clone()).collect(),
        pod_problems: pods.into_iter().filter_map(|pod| pod.problem).collect(),
        conflicts: views.claims.conflicts(&object),
        refusals,
        disturbances,
        evidence,
        settings: settings.clone(),
        object,
    }
}

fn pod_view(name: &str, kept: &CachedPod) -> PodView {
    PodView {
        name: name.to_owned(),
        uid: kept.uid.clone(),
        replica_set_uid: kept.controller.as_ref().map(|(_, uid)| uid.clone()),
        created_at: kept.created_at,
        ready: kept.ready,
        deleting: kept.deleting || kept.ended,
    }
}

/// Determines whether a ReplicaSet with our labels belongs to the ModelDeployment or is an orphan
/// of a deleted one of the same name: an orphan has no controller and the name that the operator
/// would give it.
fn resolve_ownership(kept: CachedReplicaSet, name: &str, uid: &str) -> ReplicaSetView {
    let orphaned =
        kept.controller.is_none() && kept.view.name == revision_name(name, &kept.view.revision);
    ReplicaSetView {
        owned: orphaned || kept.controller.as_deref() == Some(uid),
        orphaned,
        ..kept.view
    }
}

fn gateway_view(
    views: &ClusterViews,
    namespace: &str,
    report_of: impl Fn(&str) -> ReportOrError,
) -> GatewayView {
    let owner = ObjectOwner::gateway(namespace);
    // A pod that leaves counts as long as it says what it still does.
    let ours = views
        .pods
        .owned_by(&owner)
        .into_iter()
        .filter(|(_, e)| views.is_gateway(namespace, &e.view));
    let pods = ours.map(|(name, e)| {
        let (report, unreachable) = report_of(&e.view.uid);
        let pod = GatewayPod { name, ready: e.view.ready, report, unreachable };
        (e.view.deleting, pod)
    });
    let pods = pods.filter(|(deleting, pod)| !deleting || pod.ready || pod.report.is_some());
    GatewayView {
        // The name is fixed; whatever else carries our labels is not the gateway.
        objects: object_views(views)
            .filter_map(|(kind, cache)| Some((kind, cache.get(&owner, GATEWAY)?.view)))
            .collect(),
        pods: pods.map(|(_, pod)| pod).collect(),
        sharing_models: views.claims.count_models(namespace),
        update: views.gateway_updates.for_namespace(namespace),
    }
}

/// The caches of which a plan sees every object.
fn object_views(
    views: &ClusterViews,
) -> impl Iterator<Item = (ManagedKind, &ViewCache<ObjectView>)> {
    ManagedKind::ALL.into_iter().filter_map(|kind| Some((kind, views.object_views(kind)?)))
}

#[cfg(test)]
pub(crate) mod tests;
