//! Objects that are missing, or are not what they shall be.

use k8s_openapi::Metadata;
use slipway_crds::v1alpha1::Stage;

use super::context::Context;
use super::draft::Draft;
use crate::action::{APPLIED, Action, Desired, Kind};
use crate::build;
use crate::observed::{ModelDigest, ObjectView};
use crate::sizing;

/// Applies, in the order in which they are needed: the gateway, the addresses, then what serves.
pub(crate) fn applies(cx: &Context<'_>, draft: &Draft) -> Vec<Action> {
    let mut actions = Vec::new();
    // From a spec that cannot be acted on nothing is made; what is there stays.
    if cx.spec.problem.is_some() {
        return actions;
    }
    gateway(cx, &mut actions);
    addresses(cx, draft, &mut actions);
    pods(cx, draft, &mut actions);
    helpers(cx, &mut actions);
    workers(cx, draft, &mut actions);
    actions
}

fn gateway(cx: &Context<'_>, actions: &mut Vec<Action>) {
    let view = &cx.observed.gateway;
    let views = [&view.service_account, &view.role_binding, &view.deployment, &view.disruption_budget];
    let set = build::gateway_set(&cx.observed.object, &cx.observed.settings);
    for (desired, view) in set.into_iter().zip(views) {
        apply(cx, desired, view.as_ref(), actions);
    }
}

fn addresses(cx: &Context<'_>, draft: &Draft, actions: &mut Vec<Action>) {
    let (object, services) = (&cx.observed.object, &cx.observed.services);
    apply(cx, build::stable_service(object), services.get(&cx.spec.name), actions);
    let preview = build::preview_name(&cx.spec.name);
    if cx.spec.is_blue_green() {
        apply(cx, build::preview_service(object), services.get(&preview), actions);
    } else if let Some(view) = services.get(&preview) {
        actions.push(Action::Delete { kind: Kind::Service, name: preview, uid: view.uid.clone() });
    }
    for revision in serving(cx, draft) {
        let view = services.get(&build::revision_name(&cx.spec.name, &revision));
        apply(cx, build::revision_service(object, &revision), view, actions);
    }
}

/// Revisions that gateways must be able to reach: those with a role, and a candidate that is up or comes up.
fn serving(cx: &Context<'_>, draft: &Draft) -> Vec<String> {
    let stable = draft.stable.clone().unwrap_or_else(|| cx.spec.revision.clone());
    let candidate = draft.rollout.as_ref().filter(|rollout| rollout.stage != Stage::Aborted);
    [Some(stable), candidate.map(|rollout| rollout.revision.clone())].into_iter().flatten().collect()
}

/// ReplicaSets that are missing. Only the content of the spec's revision is known, so no other one can be made.
fn pods(cx: &Context<'_>, draft: &Draft, actions: &mut Vec<Action>) {
    let revision = &cx.spec.revision;
    let name = build::revision_name(&cx.spec.name, revision);
    // One that is being deleted, or is not ours, is in the way; nothing to do but wait, or say so.
    let taken = cx.observed.replica_sets.iter().any(|set| set.name == name);
    if taken || !serving(cx, draft).contains(revision) {
        return;
    }
    let candidate = draft.candidate() == Some(revision);
    let replicas = if candidate { sizing::candidate(cx, draft) } else { cx.spec.replicas };
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    // Until the first pod has told what it found, it stays alone.
    let unknown = build::has_fetch_step(object) && object.spec.model.digest.is_none();
    let replicas = if unknown { replicas.min(1) } else { replicas };
    let desired = build::replica_set(object, settings, revision, &cx.spec.version, replicas);
    actions.push(Action::Apply(Box::new(desired)));
}

fn helpers(cx: &Context<'_>, actions: &mut Vec<Action>) {
    let object = &cx.observed.object;
    apply(cx, build::disruption_budget(object), cx.observed.disruption_budget.as_ref(), actions);
    let view = cx.observed.autoscaler.as_ref();
    if let Some(autoscaling) = &cx.spec.autoscaling {
        apply(cx, build::autoscaler(object, autoscaling), view, actions);
    } else if let Some(view) = view {
        let (kind, name) = (Kind::HorizontalPodAutoscaler, cx.spec.name.clone());
        actions.push(Action::Delete { kind, name, uid: view.uid.clone() });
    }
}

/// The workers of the stable revision. Its content is known while the spec is of it; during a rollout they stay as they are, and the promotion
/// is what replaces them, or takes them away. An autoscaler whose Deployment is gone does no harm, so the order of the deletions is no matter.
fn workers(cx: &Context<'_>, draft: &Draft, actions: &mut Vec<Action>) {
    if draft.stable.as_ref() != Some(&cx.spec.revision) {
        return;
    }
    let (object, settings) = (&cx.observed.object, &cx.observed.settings);
    let (view, scaler) = (cx.observed.worker.as_ref(), cx.observed.worker_autoscaler.as_ref());
    let name = build::worker_name(&cx.spec.name);
    let queue = object.spec.queue.as_ref();
    if let Some(queue) = queue {
        // Workers run what the pods serve, which is not known before the first of them has told.
        if cx.set(&cx.spec.revision).is_some_and(|set| set.digest == ModelDigest::Pending) {
            return;
        }
        let digest = cx.digest(&cx.spec.revision);
        let digest = digest.as_deref().unwrap_or_default();
        let desired = build::worker_deployment(object, queue, settings, &cx.spec.revision, &cx.spec.version, digest);
        apply(cx, desired, view, actions);
    } else if let Some(view) = view {
        actions.push(Action::Delete { kind: Kind::Deployment, name: name.clone(), uid: view.uid.clone() });
    }
    match queue.and_then(|queue| queue.worker.autoscaling.as_ref()) {
        Some(autoscaling) => apply(cx, build::worker_autoscaler(object, autoscaling), scaler, actions),
        None => {
            if let Some(view) = scaler {
                actions.push(Action::Delete { kind: Kind::HorizontalPodAutoscaler, name, uid: view.uid.clone() });
            }
        }
    }
}

/// An object that is missing, not as it was applied last, or not ours yet. Its stamp was just made by the builder; making it once more would be the greater
/// part of a plan's time.
fn apply(cx: &Context<'_>, desired: Desired, view: Option<&ObjectView>, actions: &mut Vec<Action>) {
    let ours = view.is_some_and(|view| view.owners.contains(&cx.spec.uid) && view.applied == stamp(&desired));
    if !ours {
        actions.push(Action::Apply(Box::new(desired)));
    }
}

fn stamp(desired: &Desired) -> &str {
    let metadata = match desired {
        Desired::ReplicaSet(object) => object.metadata(),
        Desired::Service(object) => object.metadata(),
        Desired::HorizontalPodAutoscaler(object) => object.metadata(),
        Desired::PodDisruptionBudget(object) => object.metadata(),
        Desired::ServiceAccount(object) => object.metadata(),
        Desired::RoleBinding(object) => object.metadata(),
        Desired::Deployment(object) => object.metadata(),
    };
    metadata.annotations.as_ref().and_then(|all| all.get(APPLIED)).map(String::as_str).unwrap_or_default()
}
