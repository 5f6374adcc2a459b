//! Converts the draft to the plan: the complete status, and the urgency of its write.

use kube::ResourceExt;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{ModelDeploymentStatus, RevisionStatus, TrafficBackend};

use crate::action::{PlanAction, ReconcilePlan};
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::{report, sizing, strategy, traffic};

/// The plan for an object that is being deleted.
pub(crate) fn noop_plan(cx: &PlanContext<'_>) -> ReconcilePlan {
    ReconcilePlan {
        actions: Vec::new(),
        status: cx.stored_status.clone(),
        status_first: false,
        status_may_wait: false,
        events: Vec::new(),
        wake_at: None,
        evidence: None,
    }
}

/// Builds the plan. `taken`: the actions remove something.
pub(crate) fn finish_plan(
    cx: &PlanContext<'_>,
    mut draft: PlanDraft,
    actions: Vec<PlanAction>,
    taken: bool,
) -> ReconcilePlan {
    label_step(cx, &mut draft);
    note_observed_share(cx, &mut draft);
    let mut status = build_status(cx, &draft);
    status.conditions = report::build_conditions(cx, &draft);
    (status.state, status.message) = report::summarize_conditions(&status.conditions);
    restore_observed_share(&cx.stored_status, &mut status);
    let weights_change = gateway_weights(&cx.stored_status) != gateway_weights(&status);
    let evidence = strategy::evidence_request(cx, &draft);
    let counts_only =
        !weights_change && decision_fields(&cx.stored_status) == decision_fields(&status);
    ReconcilePlan {
        actions,
        // A decision is stored before its consequences: if a step is lost, its pods would be
        // removed again.
        status_first: !counts_only || taken,
        status_may_wait: counts_only && !taken,
        status,
        events: draft.events,
        wake_at: draft.wake_times.next_after(cx.now),
        evidence,
    }
}

fn label_step(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    if cx.spec.problem.is_some() {
        return;
    }
    let label = draft.step_label(cx);
    if let Some(rollout) = &mut draft.rollout {
        rollout.step = label;
    }
}

fn note_observed_share(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    let Some(candidate) = draft.active_rollout().map(|rollout| rollout.revision.clone()) else {
        return;
    };
    if let Some(share) = traffic::observed_share(&cx.observed.gateway, &draft.traffic, &candidate) {
        draft.traffic.observed_candidate_share = Some(traffic::format_permille(share));
    }
}

fn build_status(cx: &PlanContext<'_>, draft: &PlanDraft) -> ModelDeploymentStatus {
    let stable = draft.stable.clone().map(|revision| revision_status(cx, draft, revision));
    let candidate = draft
        .active_rollout()
        .map(|it| it.revision.clone())
        .map(|revision| revision_status(cx, draft, revision));
    ModelDeploymentStatus {
        observed_generation: Some(cx.spec.generation),
        conditions: Vec::new(),
        state: String::new(),
        message: String::new(),
        url: Some(stable_url(cx)),
        // The count of the largest revision, not of all: during a rollout there are additional pods
        // for the candidate. An autoscaler that takes this number for the one that it requested
        // (which it does within its tolerance, for averages of metrics that belong to no pod) would
        // scale up with each rollout.
        replicas: cx.replica_sets().map(|set| set.current).max().unwrap_or(0).max(0),
        selector: labels::scale_selector(&cx.spec.name),
        restarted_time: draft.last_restart.clone(),
        stable,
        candidate,
        traffic: (!draft.traffic.backends.is_empty()).then(|| draft.traffic.clone()),
        rollout: draft.rollout.clone(),
        gates: draft.gates.clone(),
        history: draft.history.clone(),
        handled_commands: draft.handled_commands.clone(),
    }
}

/// URL of the stable Service.
fn stable_url(cx: &PlanContext<'_>) -> String {
    format!("http://{}.{}", cx.spec.name, cx.observed.object.namespace().unwrap_or_default())
}

fn revision_status(cx: &PlanContext<'_>, draft: &PlanDraft, revision: String) -> RevisionStatus {
    RevisionStatus {
        version: cx.version(&revision),
        digest: cx.digest(&revision),
        weight: traffic::format_permille(traffic::weight_of(&draft.traffic, &revision)),
        replicas: sizing::target_replicas(cx, draft, &revision),
        ready_replicas: cx.ready_pods(&revision),
        revision,
    }
}

/// The parts of the status that gateways apply.
fn gateway_weights(
    status: &ModelDeploymentStatus,
) -> Option<(i64, &[TrafficBackend], Option<&str>)> {
    let traffic = status.traffic.as_ref()?;
    Some((traffic.generation, &traffic.backends, traffic.preview_revision.as_deref()))
}

/// Keeps the stored share unless the status is written for another reason: the observed share
/// changes with every request and must not cause writes.
fn restore_observed_share(stored: &ModelDeploymentStatus, status: &mut ModelDeploymentStatus) {
    let (Some(old), Some(new)) = (&stored.traffic, &mut status.traffic) else { return };
    let observed_share =
        std::mem::replace(&mut new.observed_candidate_share, old.observed_candidate_share.clone());
    if status != stored
        && let Some(new) = &mut status.traffic
    {
        new.observed_candidate_share = observed_share;
    }
}

/// The status without pod counts, without the texts that contain them, and without the confirmation
/// of weights outside of a rollout.
fn decision_fields(status: &ModelDeploymentStatus) -> ModelDeploymentStatus {
    let mut status = status.clone();
    (status.replicas, status.message) = (0, String::new());
    for revision in [&mut status.stable, &mut status.candidate].into_iter().flatten() {
        revision.replicas = 0;
        revision.ready_replicas = 0;
    }
    for condition in &mut status.conditions {
        condition.message.clear();
    }
    for gate in &mut status.gates {
        gate.message.clear();
        gate.candidate.clear();
        gate.stable.clear();
    }
    let idle = status.rollout.is_none();
    if let Some(traffic) = &mut status.traffic {
        traffic.observed_candidate_share = None;
        if idle {
            traffic.confirmed_generation = 0;
            traffic.confirmed_time = None;
        }
    }
    status
}
