//! Moves a rollout from stage to stage. Every function here makes at most one transition;
//! [`run_rollout`] repeats them until nothing changes, so that transitions without a wait need no
//! write of their own.
//!
//! ```text
//! Scaling ──capacity──▶ Confirming ──all gateways──▶ Analyzing ──pass──▶ next step
//! Scaling ──(preview)──▶ Preview ──promotion──▶ next step
//! Analyzing ──held too long──▶ Paused ──promotion──▶ next step
//! Paused (pause step) ──time or promotion──▶ next step
//! next step ──▶ Scaling or Paused; after the last one ──▶ Probation ──▶ promoted
//! any stage ──fail, brake, deadline, load failure, user──▶ Aborted ──retry──▶ first step
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

/// More transitions than any list of steps needs, so that a plan always terminates.
const MAX_TRANSITIONS: usize = 256;

/// Handles commands and advances the rollout as far as possible.
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
        // No rollout is left to which the commands could apply, and they must not affect a later
        // one.
        pending.drop_all(&mut draft.handled_commands);
    }
}

/// Handles commands, an abort first: it has precedence over all other commands.
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
    // A paused rollout does not move; commands given meanwhile stay pending.
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

/// Records the user who pauses or resumes the rollout. The effect was already determined by
/// `command::is_held_by_command`.
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
