//! How a rollout moves from stage to stage. Every function here takes at most one step;
//! [`run_rollout`] repeats until nothing moves, so that what needs no wait costs no write.
//!
//! ```text
//! Scaling ──capacity──▶ Confirming ──all gateways──▶ Analyzing ──pass──▶ next step ─▶ … ─▶ Probation ─▶ promoted
//!    ▲  └─(preview)─▶ Preview ──promotion──▶ next step     └─held too long─▶ Paused (waits for a person)
//!    └──────────────── next step ◀── Paused (pause step)
//! any of them ──fail, brake, deadline, load failure, person──▶ Aborted ──retry──▶ Scaling of the first step
//! ```

mod abort;
mod judging;
mod retarget;
mod steps;

pub(crate) use abort::{LoadFailure, note_traffic_left};
pub(crate) use judging::evidence_request;
pub(crate) use retarget::follow_spec;
use slipway_crds::labels;

use crate::command::PendingCommands;
use crate::context::PlanContext;
use crate::draft::PlanDraft;

/// More transitions than any list of steps has; a plan always ends.
const MAX_TRANSITIONS: usize = 256;

/// Carries out commands and moves the rollout as far as it goes.
pub(crate) fn run_rollout(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    pending: &mut PendingCommands,
) {
    run_commands(cx, draft, pending);
    for _ in 0..MAX_TRANSITIONS {
        if !(abort::abort_if_needed(cx, draft) || steps::advance_rollout(cx, draft, pending)) {
            break;
        }
    }
    if draft.active_rollout().is_none() {
        // Nothing is left that they could be for; an abort or a promotion to come must not find
        // them.
        pending.drop_all(&mut draft.handled_commands);
    }
}

/// Commands, an abort first: it wins over everything that was asked for with it.
fn run_commands(cx: &PlanContext<'_>, draft: &mut PlanDraft, pending: &mut PendingCommands) {
    draft.drop_stale_commands(pending);
    if pending.has(labels::ABORT) {
        let user = pending.user(labels::ABORT);
        if draft.active_rollout().is_some() {
            draft.record_command(cx, pending, labels::ABORT);
        }
        pending.drop_all(&mut draft.handled_commands);
        abort::abort_by_person(cx, draft, &user);
        return;
    }
    if pending.has(labels::RETRY) {
        retarget::retry_rollout(cx, draft, pending);
    }
    record_pause(cx, draft, pending);
    // A rollout that is held does not move; what a person asks for meanwhile waits.
    if cx.spec.paused || cx.spec.problem.is_some() {
        return;
    }
    if pending.has(labels::PROMOTE_FULL) && draft.active_rollout().is_some() {
        draft.record_command(cx, pending, labels::PROMOTE_FULL);
        if let Some(rollout) = &mut draft.rollout {
            rollout.promote_full = true;
        }
    }
    draft.skip = pending.has(labels::PROMOTE) && draft.active_rollout().is_some();
}

/// Notes who holds the rollout, and who lets it go: what comes of it `command::holds` has found
/// before.
fn record_pause(cx: &PlanContext<'_>, draft: &mut PlanDraft, pending: &mut PendingCommands) {
    if draft.active_rollout().is_none() {
        return;
    }
    if pending.has(labels::PAUSE) {
        let user = pending.user(labels::PAUSE);
        draft.record_command(cx, pending, labels::PAUSE);
        draft.rollout.iter_mut().for_each(|rollout| rollout.paused_by = Some(user.clone()));
    }
    if pending.has(labels::RESUME) {
        draft.record_command(cx, pending, labels::RESUME);
        draft.rollout.iter_mut().for_each(|rollout| rollout.paused_by = None);
    }
}
