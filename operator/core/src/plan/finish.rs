//! From the draft to the plan: the status in full, and how urgent its write is.

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

/// The plan. `taken`: the actions take something away.
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
        // Decisions before their consequences: pods that were asked for by a step that was then
        // forgotten would go again.
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
        // Of the largest revision, and not of all: during a rollout there are pods for the
        // candidate besides, and an autoscaler that takes this number for what it had asked for (as
        // it does within its tolerance, on averages of metrics that are no pod's own) would follow
        // each rollout up.
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

/// The stable address of its Service.
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

/// What gateways act on.
fn gateway_weights(
    status: &ModelDeploymentStatus,
) -> Option<(i64, &[TrafficBackend], Option<&str>)> {
    let traffic = status.traffic.as_ref()?;
    Some((traffic.generation, &traffic.backends, traffic.preview_revision.as_deref()))
}

/// The observed share moves with every request. It is told whenever status is written for another
/// reason, and is never a reason itself.
fn restore_observed_share(stored: &ModelDeploymentStatus, status: &mut ModelDeploymentStatus) {
    let (Some(old), Some(new)) = (&stored.traffic, &mut status.traffic) else { return };
    let told =
        std::mem::replace(&mut new.observed_candidate_share, old.observed_candidate_share.clone());
    if status != stored
        && let Some(new) = &mut status.traffic
    {
        new.observed_candidate_share = told;
    }
}

/// The status without counts of pods, without the texts that carry them, and without the
/// confirmation of weights that no rollout waits for.
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
