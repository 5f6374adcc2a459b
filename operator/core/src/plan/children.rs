//! Creates and updates child objects.

use std::collections::BTreeSet;

use slipway_crds::v1alpha1::RolloutStage;
use slipway_objects::desired::DesiredObject;
use slipway_objects::{ManagedKind, ObjectTarget, revision};

use super::disturbance::{self, apply_child, apply_object};
use super::network_policies;
use crate::action::PlanAction;
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::observed::{ModelDigest, ObjectView, ReplicaSetView, UpdatePermission};
use crate::sizing;

/// Applies the child objects in the order of their dependencies: the gateway, the Services, then
/// the pods.
pub(crate) fn apply_children(cx: &PlanContext<'_>, draft: &mut PlanDraft) -> Vec<PlanAction> {
    let mut actions = Vec::new();
    // Nothing is created from an invalid spec; existing objects stay.
    if cx.spec.problem.is_some() {
        return actions;
    }
    apply_gateway(cx, draft, &mut actions);
    network_policies::apply_model_policies(cx, draft, &mut actions);
    apply_services(cx, draft, &mut actions);
    apply_replica_set(cx, draft, &mut actions);
    apply_scaling_objects(cx, draft, &mut actions);
    apply_workers(cx, draft, &mut actions);
    actions
}

/// Adopts the objects that an earlier ModelDeployment of this name left when it was deleted without
/// its children. Desired objects are adopted when they are applied. Of the others only ReplicaSets
/// and their Services are adopted, whose names do not occur by accident; any other object may be a
/// user's copy of the operator's manifests.
pub(crate) fn adopt_orphans(cx: &PlanContext<'_>, actions: &mut Vec<PlanAction>) {
    let owner = || Box::new(slipway_objects::controller_reference(&cx.observed.object));
    for set in cx.replica_sets().filter(|set| set.orphaned) {
        let (kind, name, uid) = (ManagedKind::ReplicaSet, set.name.clone(), set.uid.clone());
        actions.push(PlanAction::Adopt { kind, name, uid, owner: owner() });
    }
    for (name, view) in cx.observed.children_of(ManagedKind::Service) {
        let of_revision = revision::revision_in_name(&cx.spec.name, name)
            .is_some_and(|revision| cx.replica_set(revision).is_some());
        let target = ObjectTarget::new(ManagedKind::Service, name);
        let applied = actions
            .iter()
            .any(|it| matches!(it, PlanAction::Apply(desired) if desired.target() == target));
        if of_revision && view.controller.is_none() && !applied {
            let (kind, name, uid) = (ManagedKind::Service, name.to_owned(), view.uid.clone());
            actions.push(PlanAction::Adopt { kind, name, uid, owner: owner() });
        }
    }
}

/// Deletes an object that this ModelDeployment controls. An object with the operator's labels but
/// another controller, or none, is a copy made by another client.
pub(super) fn delete_child(
    cx: &PlanContext<'_>,
    kind: ManagedKind,
    name: &str,
    actions: &mut Vec<PlanAction>,
) {
    let view = cx.observed.child(kind, name);
    if let Some(view) = view.filter(|view| view.controller.as_ref() == Some(&cx.spec.uid)) {
        actions.push(PlanAction::Delete { kind, name: name.to_owned(), uid: view.uid.clone() });
    }
}

fn apply_gateway(cx: &PlanContext<'_>, draft: &mut PlanDraft, actions: &mut Vec<PlanAction>) {
    let view = &cx.observed.gateway;
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let policy = slipway_objects::gateway_network_policy(object, settings);
    if policy.is_none() {
        delete_shared(cx, ManagedKind::NetworkPolicy, actions);
    }
    let autoscaler = slipway_objects::gateway_autoscaler(object, settings);
    if autoscaler.is_none() && settings.gateway_problem.is_none() {
        delete_shared(cx, ManagedKind::HorizontalPodAutoscaler, actions);
    }
    let set = slipway_objects::gateway_objects(object, settings).into_iter();
    for mut desired in set.chain(policy).chain(autoscaler) {
        let there = view.objects.get(&desired.kind());
        if view.sharing_models > slipway_objects::MAX_OWNERS {
            desired.metadata_mut().owner_references = None;
        }
        if is_frozen(cx, &desired, there) || waits_for_update(cx, &desired, there) {
            continue;
        }
        if let (DesiredObject::Deployment(deployment), None) = (&mut desired, there) {
            let spec = deployment.spec.get_or_insert_default();
            spec.replicas = Some(slipway_objects::initial_gateway_replicas(settings));
        }
        apply_object(cx, draft, desired, there, actions);
    }
}

/// Deletes an object of the gateway that is not wanted any more: whoever owns it takes it away.
fn delete_shared(cx: &PlanContext<'_>, kind: ManagedKind, actions: &mut Vec<PlanAction>) {
    let there = cx.observed.gateway.objects.get(&kind);
    if let Some(view) =
        there.filter(|view| view.owners.is_empty() || view.owners.contains(&cx.spec.uid))
    {
        actions.push(PlanAction::Delete {
            kind,
            name: slipway_objects::GATEWAY.to_owned(),
            uid: view.uid.clone(),
        });
    }
}

/// Whether an existing object stays unchanged because it depends on settings of the namespace that
/// cannot be read now.
fn is_frozen(cx: &PlanContext<'_>, desired: &DesiredObject, there: Option<&ObjectView>) -> bool {
    let by_settings = matches!(
        desired,
        DesiredObject::Deployment(_)
            | DesiredObject::NetworkPolicy(_)
            | DesiredObject::HorizontalPodAutoscaler(_)
    );
    by_settings && there.is_some() && cx.observed.settings.gateway_problem.is_some()
}

/// Whether the gateway keeps the pods of another version for now. If none of them is ready, the
/// update cannot make things worse and does not wait.
fn waits_for_update(
    cx: &PlanContext<'_>,
    desired: &DesiredObject,
    there: Option<&ObjectView>,
) -> bool {
    let view = &cx.observed.gateway;
    matches!(desired, DesiredObject::Deployment(_))
        && there.is_some_and(|there| there.applied_hash != desired.applied_hash())
        && view.update != UpdatePermission::Allowed
        && view.pods.iter().any(|pod| pod.ready)
}

fn apply_services(cx: &PlanContext<'_>, draft: &mut PlanDraft, actions: &mut Vec<PlanAction>) {
    let object = &cx.observed.object;
    apply_child(cx, draft, slipway_objects::stable_service(object), actions);
    if cx.spec.is_blue_green() {
        apply_child(cx, draft, slipway_objects::preview_service(object), actions);
    } else {
        let preview = slipway_objects::preview_name(&cx.spec.name);
        delete_child(cx, ManagedKind::Service, &preview, actions);
    }
    for revision in serving_revisions(cx, draft) {
        apply_child(cx, draft, slipway_objects::revision_service(object, &revision), actions);
    }
}

/// Revisions that gateways must be able to reach: the stable one, and a candidate that was not
/// rolled back.
pub(super) fn serving_revisions(cx: &PlanContext<'_>, draft: &PlanDraft) -> Vec<String> {
    let stable = draft.stable.clone().unwrap_or_else(|| cx.spec.revision.clone());
    let candidate = draft.rollout.as_ref().filter(|rollout| rollout.stage != RolloutStage::Aborted);
    [Some(stable), candidate.map(|rollout| rollout.revision.clone())]
        .into_iter()
        .flatten()
        .collect()
}

/// Creates the ReplicaSet of the spec's revision if it is missing, and restores it if its template
/// was changed. Only the content of that revision is known, so no other one can be created or
/// restored.
fn apply_replica_set(cx: &PlanContext<'_>, draft: &mut PlanDraft, actions: &mut Vec<PlanAction>) {
    let revision = &cx.spec.revision;
    let name = slipway_objects::revision_name(&cx.spec.name, revision);
    if !serving_revisions(cx, draft).contains(revision) {
        return;
    }
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let made = |replicas, digest| {
        slipway_objects::replica_set(object, settings, revision, &cx.spec.version, replicas, digest)
    };
    // One that is being deleted, or has another owner, blocks the name; the plan waits for it or
    // reports it.
    if let Some(there) = cx.observed.replica_sets.iter().find(|set| set.name == name) {
        if there.owned && !there.orphaned && !there.deleting {
            let desired = made(there.desired, there.digest.known_digest());
            if draft.stable.as_ref() == Some(revision) {
                draft.outdated_images = find_outdated_images(cx, there, &desired);
            }
            disturbance::restore_replica_set(cx, draft, there, desired, actions);
        }
        return;
    }
    let candidate = draft.candidate() == Some(revision);
    let replicas = if candidate { sizing::candidate_replicas(cx, draft) } else { cx.spec.replicas };
    // The first pod stays alone until it has reported its digest.
    let unknown = slipway_objects::has_fetch_step(object) && object.spec.model.digest.is_none();
    let replicas = if unknown { replicas.min(1) } else { replicas };
    apply_child(cx, draft, made(replicas, None), actions);
}

/// Operator-supplied images in the ReplicaSet that differ from the current settings, each with the
/// current one. Excludes the init container that fetches for a server with the user's own image,
/// because that user decides when the pods change.
fn find_outdated_images(
    cx: &PlanContext<'_>,
    there: &ReplicaSetView,
    desired: &DesiredObject,
) -> BTreeSet<(String, String)> {
    let DesiredObject::ReplicaSet(made) = desired else { return BTreeSet::new() };
    let own_image = cx.observed.object.spec.template.server_image().is_some();
    // If the applied hash is current, another client caused any difference.
    let others = slipway_objects::container_images(made)
        .into_iter()
        .filter(|_| there.applied_hash != desired.applied_hash());
    let others =
        others.filter(|(container, _)| !(own_image && container == slipway_objects::FETCH));
    let pairs = others
        .filter_map(|(container, image)| Some((there.images.get(&container)?.clone(), image)));
    pairs.filter(|(before, now)| before != now).collect()
}

fn apply_scaling_objects(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    actions: &mut Vec<PlanAction>,
) {
    let object = &cx.observed.object;
    apply_child(cx, draft, slipway_objects::disruption_budget(object), actions);
    if let Some(autoscaling) = &cx.spec.autoscaling {
        apply_child(cx, draft, slipway_objects::model_autoscaler(object, autoscaling), actions);
    } else {
        delete_child(cx, ManagedKind::HorizontalPodAutoscaler, &cx.spec.name, actions);
    }
}

/// Applies the workers of the stable revision. Its content is known only if the spec has that
/// revision; during a rollout the workers do not change, and the promotion replaces or deletes
/// them. An autoscaler without its Deployment does no harm, so the order of the deletions does not
/// matter.
fn apply_workers(cx: &PlanContext<'_>, draft: &mut PlanDraft, actions: &mut Vec<PlanAction>) {
    if draft.stable.as_ref() != Some(&cx.spec.revision) {
        return;
    }
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let name = slipway_objects::worker_name(&cx.spec.name);
    let queue = object.spec.queue().map(|(_, queue)| queue);
    if let Some(queue) = &queue {
        // Workers serve the same model as the pods, which is not known before the first pod has
        // reported it.
        if cx.replica_set(&cx.spec.revision).is_some_and(|set| set.digest == ModelDigest::Pending) {
            return;
        }
        let digest = cx.digest(&cx.spec.revision);
        let digest = digest.as_deref().unwrap_or_default();
        let restart =
            object.spec.restart_time.as_ref().map(|time| time.0).filter(|asked| *asked <= cx.now);
        let (revision, version) = (&cx.spec.revision, &cx.spec.version);
        let desired = slipway_objects::worker_deployment(
            object, queue, settings, revision, version, digest, restart,
        );
        apply_child(cx, draft, desired, actions);
    } else {
        delete_child(cx, ManagedKind::Deployment, &name, actions);
    }
    match queue.as_ref().and_then(|queue| queue.worker.autoscaling.as_ref()) {
        Some(autoscaling) => {
            apply_child(cx, draft, slipway_objects::worker_autoscaler(object, autoscaling), actions)
        }
        None => delete_child(cx, ManagedKind::HorizontalPodAutoscaler, &name, actions),
    }
}
