//! How a rollout moves from stage to stage. Every function here takes at most one step; [`run`] repeats until nothing moves, so that what needs no wait
//! costs no write.
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

pub(crate) use abort::{LoadFailure, traffic_left};
pub(crate) use judging::evidence_request;
pub(crate) use retarget::retarget;

use slipway_crds::labels;

use crate::command::Pending;
use crate::context::Context;
use crate::draft::Draft;

/// More transitions than any list of steps has; a plan always ends.
const TRANSITIONS: usize = 256;

/// Carries out commands and moves the rollout as far as it goes.
pub(crate) fn run(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) {
    obey(cx, draft, pending);
    for _ in 0..TRANSITIONS {
        if !(abort::when_needed(cx, draft) || steps::advance(cx, draft, pending)) {
            break;
        }
    }
    if draft.active().is_none() {
        // Nothing is left that they could be for; an abort or a promotion to come must not find them.
        pending.drop_all(&mut draft.handled);
    }
}

/// Commands, an abort first: it wins over everything that was asked for with it.
fn obey(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) {
    draft.drop_late(pending);
    if pending.has(labels::ABORT) {
        let user = pending.user(labels::ABORT);
        if draft.active().is_some() {
            draft.obey(cx, pending, labels::ABORT);
        }
        pending.drop_all(&mut draft.handled);
        abort::by_person(cx, draft, &user);
        return;
    }
    if pending.has(labels::RETRY) {
        retarget::retry(cx, draft, pending);
    }
    hold(cx, draft, pending);
    // A rollout that is held does not move; what a person asks for meanwhile waits.
    if cx.spec.paused || cx.spec.problem.is_some() {
        return;
    }
    if pending.has(labels::PROMOTE_FULL) && draft.active().is_some() {
        draft.obey(cx, pending, labels::PROMOTE_FULL);
        if let Some(rollout) = &mut draft.rollout {
            rollout.promote_full = true;
        }
    }
    draft.skip = pending.has(labels::PROMOTE) && draft.active().is_some();
}

/// Notes who holds the rollout, and who lets it go: what comes of it `command::holds` has found before.
fn hold(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) {
    if draft.active().is_none() {
        return;
    }
    if pending.has(labels::PAUSE) {
        let user = pending.user(labels::PAUSE);
        draft.obey(cx, pending, labels::PAUSE);
        draft.rollout.iter_mut().for_each(|rollout| rollout.paused_by = Some(user.clone()));
    }
    if pending.has(labels::RESUME) {
        draft.obey(cx, pending, labels::RESUME);
        draft.rollout.iter_mut().for_each(|rollout| rollout.paused_by = None);
    }
}
