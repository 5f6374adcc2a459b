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
use slipway_crds::v1alpha1::Stage;

use crate::command::Pending;
use crate::plan::{Context, Draft};

/// More transitions than any list of steps has; a plan always ends.
const TRANSITIONS: usize = 256;

/// Carries out commands and moves the rollout as far as it goes.
pub(crate) fn run(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) {
    obey(cx, draft, pending);
    for _ in 0..TRANSITIONS {
        let skipping = draft.skip;
        let moved = abort::when_needed(cx, draft) || steps::advance(cx, draft);
        if skipping && !draft.skip {
            pending.handle(labels::PROMOTE, &mut draft.handled);
        }
        if !moved {
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
    if pending.has(labels::ABORT) {
        pending.drop_all(&mut draft.handled);
        abort::by_person(cx, draft);
        return;
    }
    if pending.has(labels::RETRY) {
        pending.handle(labels::RETRY, &mut draft.handled);
        retarget::retry(cx, draft);
    }
    // A rollout that is held does not move; what a person asks for meanwhile waits.
    if cx.spec.paused || cx.spec.problem.is_some() {
        return;
    }
    if pending.has(labels::PROMOTE_FULL) {
        pending.handle(labels::PROMOTE_FULL, &mut draft.handled);
        if let Some(rollout) = draft.rollout.as_mut().filter(|rollout| rollout.stage != Stage::Aborted) {
            rollout.promote_full = true;
        }
    }
    draft.skip = pending.has(labels::PROMOTE) && draft.active().is_some();
}
