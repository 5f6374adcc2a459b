//! Plans the actions and the status of one ModelDeployment.

mod children;
mod disturbance;
mod finish;
mod identify;
mod marks;
mod network_policies;
mod restart;
mod scale;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::action::PlanAction;
pub use crate::action::ReconcilePlan;
use crate::command::{self, PendingCommands};
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::observed::ObservedState;
use crate::{strategy, traffic};

/// Returns the actions for one ModelDeployment, and its new status.
///
/// Total and deterministic: every input has a result, and the same input has the same result. A
/// decision and the removals that follow from it are in one plan; [`ReconcilePlan::status_first`]
/// documents the order that makes this safe on a stale view.
pub fn plan(observed: &ObservedState, now: Timestamp) -> ReconcilePlan {
    let cx = PlanContext::new(observed, now);
    if observed.object.metadata.deletion_timestamp.is_some() {
        // Garbage collection deletes the children by their owner references.
        return finish::noop_plan(&cx);
    }
    let mut draft = PlanDraft::new(&cx, identify::stable_revision(&cx));
    let mut pending = PendingCommands::for_object(&observed.object);
    if observed.object.status.is_none() {
        command::mark_all_handled(&observed.object, &mut draft.handled_commands);
    }
    identify::repair_draft(&cx, &mut draft);
    strategy::follow_spec(&cx, &mut draft, &mut pending);
    note_confirmation(&cx, &mut draft);
    strategy::run_rollout(&cx, &mut draft, &mut pending);
    strategy::note_traffic_left(&cx, &mut draft);
    let scaling = scale::scaling_actions(&cx, &draft);
    let restart = restart::restart_actions(&cx, &mut draft);
    let evicts = restart.iter().any(|action| matches!(action, PlanAction::Evict { .. }));
    let taken = evicts || !scaling.shrink.is_empty();
    let mut actions = scaling.grow;
    actions.extend(children::apply_children(&cx, &mut draft));
    children::adopt_orphans(&cx, &mut actions);
    scale::pin_models(&cx, &mut actions);
    write_replicas(&cx, &mut actions);
    marks::add_mark_actions(&cx, &draft, &mut actions);
    actions.extend(scaling.shrink);
    actions.extend(restart);
    finish::finish_plan(&cx, draft, actions, taken)
}

/// Records once that every gateway uses the newest weights.
fn note_confirmation(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    let current = draft.traffic.generation;
    if current <= 0
        || traffic::is_confirmed(&draft.traffic)
        || !traffic::all_ready_at(&cx.observed.gateway, current)
    {
        return;
    }
    let at = cx.now_seconds_ceil();
    traffic::confirm_weights(&mut draft.traffic, at);
    let last = draft.rollout.as_mut().and_then(|rollout| rollout.steps.last_mut());
    if let Some(record) =
        last.filter(|record| record.confirmed_time.is_none() && record.end_time.is_none())
    {
        record.confirmed_time = Some(Time(at));
    }
}

/// Writes `spec.replicas` if it is absent: without a value the scale subresource returns an error,
/// so that neither an autoscaler nor `kubectl scale` could work.
fn write_replicas(cx: &PlanContext<'_>, actions: &mut Vec<PlanAction>) {
    if cx.observed.object.spec.replicas.is_none() && cx.spec.problem.is_none() {
        actions.push(PlanAction::WriteReplicas { replicas: cx.spec.replicas });
    }
}
