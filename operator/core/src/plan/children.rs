//! Objects that are missing, or are not what they shall be.

use std::collections::BTreeSet;

use slipway_crds::v1alpha1::Stage;

use super::disturbance::{self, apply};
use super::network_policies;
use crate::action::Action;
use crate::context::Context;
use crate::desired::{Desired, Kind};
use crate::draft::Draft;
use crate::observed::{GatewayUpdate, ModelDigest, ObjectView, ReplicaSetView};
use crate::{build, revision, sizing};

/// Applies, in the order in which they are needed: the gateway, the addresses, then what serves.
pub(crate) fn applies(cx: &Context<'_>, draft: &mut Draft) -> Vec<Action> {
    let mut actions = Vec::new();
    // From a spec that cannot be acted on nothing is made; what is there stays.
    if cx.spec.problem.is_some() {
        return actions;
    }
    gateway(cx, draft, &mut actions);
    network_policies::of_model(cx, draft, &mut actions);
    addresses(cx, draft, &mut actions);
    pods(cx, draft, &mut actions);
    helpers(cx, draft, &mut actions);
    workers(cx, draft, &mut actions);
    actions
}

/// Takes back what a ModelDeployment of this name left when it was deleted without its children. What is wanted is taken back by being applied; of the rest
/// only ReplicaSets and their Services, whose names nobody chooses by accident: a copy of our manifests that somebody keeps is theirs.
pub(crate) fn adoptions(cx: &Context<'_>, actions: &mut Vec<Action>) {
    let owner = || Box::new(build::controller_reference(&cx.observed.object));
    for set in cx.sets().filter(|set| set.orphaned) {
        let (name, uid) = (set.name.clone(), set.uid.clone());
        actions.push(Action::Adopt { kind: Kind::ReplicaSet, name, uid, owner: owner() });
    }
    for (name, view) in &cx.observed.services {
        let of_revision = revision::in_name(&cx.spec.name, name).is_some_and(|revision| cx.set(revision).is_some());
        let applied = actions
            .iter()
            .any(|it| matches!(it, Action::Apply(desired) if desired.target() == format!("Service {name}")));
        if of_revision && view.controller.is_none() && !applied {
            let (name, uid) = (name.clone(), view.uid.clone());
            actions.push(Action::Adopt { kind: Kind::Service, name, uid, owner: owner() });
        }
    }
}

/// Deletes an object that this ModelDeployment controls. One with our labels and another controller, or none, is a copy that somebody made.
pub(super) fn delete(cx: &Context<'_>, kind: Kind, name: &str, view: Option<&ObjectView>, actions: &mut Vec<Action>) {
    if let Some(view) = view.filter(|view| view.controller.as_ref() == Some(&cx.spec.uid)) {
        actions.push(Action::Delete { kind, name: name.to_owned(), uid: view.uid.clone() });
    }
}

fn gateway(cx: &Context<'_>, draft: &mut Draft, actions: &mut Vec<Action>) {
    let view = &cx.observed.gateway;
    let views = [&view.service_account, &view.role_binding, &view.service, &view.deployment, &view.disruption_budget];
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let policy = build::gateway_network_policy(object, settings).map(|policy| (policy, &view.network_policy));
    if policy.is_none() {
        delete_shared(cx, Kind::NetworkPolicy, view.network_policy.as_ref(), actions);
    }
    let autoscaler = build::gateway_autoscaler(object, settings).map(|autoscaler| (autoscaler, &view.autoscaler));
    if autoscaler.is_none() && settings.gateway_problem.is_none() {
        delete_shared(cx, Kind::HorizontalPodAutoscaler, view.autoscaler.as_ref(), actions);
    }
    let set = build::gateway_set(object, settings).into_iter().zip(views);
    for (mut desired, there) in set.chain(policy).chain(autoscaler) {
        if view.sharers > build::MAX_OWNERS {
            desired.metadata_mut().owner_references = None;
        }
        if is_frozen(cx, &desired, there.as_ref()) || waits(cx, &desired, there.as_ref()) {
            continue;
        }
        if let (Desired::Deployment(deployment), None) = (&mut desired, there) {
            let spec = deployment.spec.get_or_insert_default();
            spec.replicas = Some(build::first_gateway_replicas(settings));
        }
        apply(cx, draft, desired, there.as_ref(), actions);
    }
}

/// Deletes an object of the gateway that is not wanted any more: whoever owns it takes it away.
fn delete_shared(cx: &Context<'_>, kind: Kind, there: Option<&ObjectView>, actions: &mut Vec<Action>) {
    if let Some(view) = there.filter(|view| view.owners.is_empty() || view.owners.contains(&cx.spec.uid)) {
        actions.push(Action::Delete { kind, name: build::GATEWAY.to_owned(), uid: view.uid.clone() });
    }
}

/// Whether what is there stays as it is, because it was made with settings of the namespace that cannot be read now.
fn is_frozen(cx: &Context<'_>, desired: &Desired, there: Option<&ObjectView>) -> bool {
    let by_settings =
        matches!(desired, Desired::Deployment(_) | Desired::NetworkPolicy(_) | Desired::HorizontalPodAutoscaler(_));
    by_settings && there.is_some() && cx.observed.settings.gateway_problem.is_some()
}

/// Whether the gateway's pods stay those of another version for now. Where none of them is ready there is nothing to lose.
fn waits(cx: &Context<'_>, desired: &Desired, there: Option<&ObjectView>) -> bool {
    let view = &cx.observed.gateway;
    matches!(desired, Desired::Deployment(_))
        && there.is_some_and(|there| there.applied != desired.stamp())
        && view.update != GatewayUpdate::Allowed
        && view.pods.iter().any(|pod| pod.ready)
}

fn addresses(cx: &Context<'_>, draft: &mut Draft, actions: &mut Vec<Action>) {
    let (object, services) = (&cx.observed.object, &cx.observed.services);
    apply(cx, draft, build::stable_service(object), services.get(&cx.spec.name), actions);
    let preview = build::preview_name(&cx.spec.name);
    if cx.spec.is_blue_green() {
        apply(cx, draft, build::preview_service(object), services.get(&preview), actions);
    } else {
        delete(cx, Kind::Service, &preview, services.get(&preview), actions);
    }
    for revision in serving(cx, draft) {
        let view = services.get(&build::revision_name(&cx.spec.name, &revision));
        apply(cx, draft, build::revision_service(object, &revision), view, actions);
    }
}

/// Revisions that gateways must be able to reach: those with a role, and a candidate that is up or comes up.
pub(super) fn serving(cx: &Context<'_>, draft: &Draft) -> Vec<String> {
    let stable = draft.stable.clone().unwrap_or_else(|| cx.spec.revision.clone());
    let candidate = draft.rollout.as_ref().filter(|rollout| rollout.stage != Stage::Aborted);
    [Some(stable), candidate.map(|rollout| rollout.revision.clone())].into_iter().flatten().collect()
}

/// The ReplicaSet of the spec's revision, if it is missing, or if its template is not what it was made with. Only the content of that revision is known, so no
/// other one can be made, or mended.
fn pods(cx: &Context<'_>, draft: &mut Draft, actions: &mut Vec<Action>) {
    let revision = &cx.spec.revision;
    let name = build::revision_name(&cx.spec.name, revision);
    if !serving(cx, draft).contains(revision) {
        return;
    }
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let made = |replicas, digest| build::replica_set(object, settings, revision, &cx.spec.version, replicas, digest);
    // One that is being deleted, or is not ours, is in the way; nothing to do but wait, or say so.
    if let Some(there) = cx.observed.replica_sets.iter().find(|set| set.name == name) {
        if there.owned && !there.orphaned && !there.deleting {
            let desired = made(there.desired, there.digest.known());
            if draft.stable.as_ref() == Some(revision) {
                draft.outdated = outdated(cx, there, &desired);
            }
            disturbance::mend(cx, draft, there, desired, actions);
        }
        return;
    }
    let candidate = draft.candidate() == Some(revision);
    let replicas = if candidate { sizing::candidate(cx, draft) } else { cx.spec.replicas };
    // Until the first pod has told what it found, it stays alone.
    let unknown = build::has_fetch_step(object) && object.spec.model.digest.is_none();
    let replicas = if unknown { replicas.min(1) } else { replicas };
    apply(cx, draft, made(replicas, None), None, actions);
}

/// Images of the operator's that the ReplicaSet was made with and would not be made with today, each with the one of today. Not those of the step that fetches for a
/// server of the user's own: whoever names an image decides when it changes.
fn outdated(cx: &Context<'_>, there: &ReplicaSetView, desired: &Desired) -> BTreeSet<(String, String)> {
    let Desired::ReplicaSet(made) = desired else { return BTreeSet::new() };
    let own_image = cx.observed.object.spec.template.image().is_some();
    // Of one that is as it would be made whatever differs is somebody else's doing.
    let others = build::images(made).into_iter().filter(|_| there.applied != desired.stamp());
    let others = others.filter(|(container, _)| !(own_image && container == build::FETCH));
    let pairs = others.filter_map(|(container, image)| Some((there.images.get(&container)?.clone(), image)));
    pairs.filter(|(before, now)| before != now).collect()
}

fn helpers(cx: &Context<'_>, draft: &mut Draft, actions: &mut Vec<Action>) {
    let object = &cx.observed.object;
    apply(cx, draft, build::disruption_budget(object), cx.observed.disruption_budget.as_ref(), actions);
    let view = cx.observed.autoscaler.as_ref();
    if let Some(autoscaling) = &cx.spec.autoscaling {
        apply(cx, draft, build::autoscaler(object, autoscaling), view, actions);
    } else {
        delete(cx, Kind::HorizontalPodAutoscaler, &cx.spec.name, view, actions);
    }
}

/// The workers of the stable revision. Its content is known while the spec is of it; during a rollout they stay as they are, and the promotion
/// is what replaces them, or takes them away. An autoscaler whose Deployment is gone does no harm, so the order of the deletions is no matter.
fn workers(cx: &Context<'_>, draft: &mut Draft, actions: &mut Vec<Action>) {
    if draft.stable.as_ref() != Some(&cx.spec.revision) {
        return;
    }
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let (view, scaler) = (cx.observed.worker.as_ref(), cx.observed.worker_autoscaler.as_ref());
    let name = build::worker_name(&cx.spec.name);
    let queue = object.spec.queue().map(|(_, queue)| queue);
    if let Some(queue) = &queue {
        // Workers run what the pods serve, which is not known before the first of them has told.
        if cx.set(&cx.spec.revision).is_some_and(|set| set.digest == ModelDigest::Pending) {
            return;
        }
        let digest = cx.digest(&cx.spec.revision);
        let digest = digest.as_deref().unwrap_or_default();
        let restart = object.spec.restart_time.as_ref().map(|time| time.0).filter(|asked| *asked <= cx.now);
        let (revision, version) = (&cx.spec.revision, &cx.spec.version);
        let desired = build::worker_deployment(object, queue, settings, revision, version, digest, restart);
        apply(cx, draft, desired, view, actions);
    } else {
        delete(cx, Kind::Deployment, &name, view, actions);
    }
    match queue.as_ref().and_then(|queue| queue.worker.autoscaling.as_ref()) {
        Some(autoscaling) => apply(cx, draft, build::worker_autoscaler(object, autoscaling), scaler, actions),
        None => delete(cx, Kind::HorizontalPodAutoscaler, &name, scaler, actions),
    }
}
