//! One step after the other.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::conditions::reason;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{GateVerdict, HoldPolicy, Outcome, Stage, StepRecord};

use super::judging;
use crate::command::Pending;
use crate::context::Context;
use crate::draft::Draft;
use crate::sizing;
use crate::time::after;
use crate::traffic::{self, ALL};
use crate::validate::{Step, is_judged};

/// Takes at most one transition; true when it did.
pub(super) fn advance(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) -> bool {
    let Some(stage) = draft.active().map(|rollout| rollout.stage) else { return false };
    if cx.spec.problem.is_some() {
        return false;
    }
    if fits(cx, draft, stage) {
        return match stage {
            Stage::Scaling => scaling(cx, draft),
            Stage::Confirming => confirming(cx, draft),
            Stage::Analyzing => analyzing(cx, draft, pending),
            Stage::Paused => paused(cx, draft, pending),
            Stage::Preview => preview(cx, draft, pending),
            Stage::Probation => probation(cx, draft, pending),
            Stage::Aborted => false,
        };
    }
    true
}

/// Makes stage and step agree. They do not when a person changed the steps in the middle of a rollout, or asked for full promotion; then the step begins anew.
fn fits(cx: &Context<'_>, draft: &mut Draft, stage: Stage) -> bool {
    let last = cx.spec.last_weight();
    let index = draft.step_index();
    let full = !cx.spec.paused && draft.active().is_some_and(|rollout| rollout.promote_full);
    if full && index < last {
        draft.close_step(cx, "skipped by a person");
        enter_step(cx, draft, last);
        return false;
    }
    if index >= cx.spec.steps.len() {
        enter_step(cx, draft, cx.spec.steps.len().saturating_sub(1));
        return false;
    }
    let agree = match (stage, cx.spec.step(index)) {
        (Stage::Scaling, step) => !matches!(step, Step::Pause(_)),
        (Stage::Confirming | Stage::Analyzing, Step::Weight(weight)) => draft.weight() == weight,
        (Stage::Paused, Step::Weight(weight)) => draft.weight() == weight,
        (Stage::Paused, Step::Pause(_)) | (Stage::Preview, Step::Preview) => true,
        (Stage::Probation, _) => draft.weight() == ALL && index >= last,
        _ => false,
    };
    if !agree {
        enter_step(cx, draft, if stage == Stage::Probation { last } else { index });
    }
    agree
}

/// Begins a step.
pub(super) fn enter_step(cx: &Context<'_>, draft: &mut Draft, index: usize) {
    let stage = if matches!(cx.spec.step(index), Step::Pause(_)) { Stage::Paused } else { Stage::Scaling };
    draft.enter(cx, index, stage);
    if matches!(cx.spec.step(index), Step::Pause(None)) {
        let next = format!("step {} waits for a person", index.saturating_add(1));
        draft.note(
            false,
            reason::PAUSE_STEP,
            "Pause",
            &format!("{next}; go on with the annotation ml.slipway.dev/promote"),
        );
    }
}

fn end_step(cx: &Context<'_>, draft: &mut Draft, verdict: &str) {
    draft.close_step(cx, verdict);
    let next = draft.step_index().saturating_add(1);
    if next < cx.spec.steps.len() {
        enter_step(cx, draft, next);
    } else {
        draft.enter(cx, next.saturating_sub(1), Stage::Probation);
    }
}

/// Capacity before weight.
fn scaling(cx: &Context<'_>, draft: &mut Draft) -> bool {
    if cx.spec.paused || !sizing::has_capacity(cx, draft) {
        return false;
    }
    match cx.spec.step(draft.step_index()) {
        // Who cannot be heard before can neither be heard after.
        Step::Weight(weight) if weight > 0 && waits_for_gateways(cx, draft) => return false,
        Step::Weight(weight) => set_weight(cx, draft, weight),
        Step::Preview => {
            let (backends, candidate) = (draft.traffic.backends.clone(), draft.candidate().map(str::to_owned));
            draft.write(cx, backends, candidate);
            let index = draft.step_index();
            draft.enter(cx, index, Stage::Preview);
        }
        Step::Scale(_) | Step::Pause(_) => end_step(cx, draft, ""),
    }
    true
}

/// Whether gateways keep the candidate from getting a share: no more is given while what was asked for is not known to be so.
fn waits_for_gateways(cx: &Context<'_>, draft: &mut Draft) -> bool {
    let Some(since) = draft.active().map(|rollout| rollout.stage_start_time.0) else { return false };
    for (since, _) in traffic::missing(&cx.observed.gateway, draft.traffic.generation, since) {
        draft.wake(after(since, traffic::LATE_SECONDS));
    }
    !cx.gateways_follow()
}

fn set_weight(cx: &Context<'_>, draft: &mut Draft, weight: i32) {
    let (Some(stable), Some(candidate)) = (draft.stable.clone(), draft.candidate().map(str::to_owned)) else { return };
    let preview = draft.traffic.preview_revision.clone();
    // At weight 0 the candidate is in nobody's list yet; a generation that changes nothing would only cost a confirmation.
    let new = if weight == 0 && draft.weight() == 0 {
        false
    } else {
        draft.write(cx, traffic::split(&stable, &candidate, weight), preview)
    };
    if new && weight < traffic::ALL {
        // Looks and verdicts belong to one weight. With all traffic there is nothing to compare with, and the last verdict stands; rows of looks start anew
        // by the time of the confirmation.
        draft.gates.clear();
    }
    let index = draft.step_index();
    draft.enter(cx, index, Stage::Confirming);
    let confirmed_time = traffic::confirmed_time(&draft.traffic).filter(|_| !new).map(Time);
    if let Some(rollout) = &mut draft.rollout {
        rollout.steps.push(StepRecord {
            weight_permille: weight,
            set_time: Time(cx.stamp()),
            confirmed_time,
            end_time: None,
            observed_permille: None,
            verdict: String::new(),
        });
        let surplus = rollout.steps.len().saturating_sub(64);
        rollout.steps.drain(..surplus);
    }
}

/// A step counts from confirmation only.
fn confirming(cx: &Context<'_>, draft: &mut Draft) -> bool {
    if !traffic::is_confirmed(&draft.traffic) {
        return take_unconfirmed_back(cx, draft);
    }
    if is_judged(draft.weight()) && !cx.spec.gates.is_empty() {
        let index = draft.step_index();
        draft.enter(cx, index, Stage::Analyzing);
        return true;
    }
    if cx.spec.paused {
        return false;
    }
    end_step(cx, draft, "confirmed; not judged");
    true
}

/// Weights that are not confirmed are weights that nobody can judge, nor take away in time. They go back, without blame, and the rollout begins again when all
/// gateways confirm.
fn take_unconfirmed_back(cx: &Context<'_>, draft: &mut Draft) -> bool {
    let Some(since) = draft.active().map(|rollout| rollout.stage_start_time.0).filter(|_| draft.weight() > 0) else {
        return false;
    };
    let missing = traffic::missing(&cx.observed.gateway, draft.traffic.generation, since);
    for (since, _) in &missing {
        draft.wake(after(*since, traffic::CONFIRMATION_SECONDS));
    }
    let overdue = missing.into_iter().find(|(since, _)| cx.passed(*since, traffic::CONFIRMATION_SECONDS));
    let Some((_, why)) = overdue else { return false };
    let weight = traffic::percent(draft.weight());
    let message = format!("weight {weight} was not confirmed within {} s: {why}", traffic::CONFIRMATION_SECONDS);
    draft.close_step(cx, &message);
    draft.gates.clear();
    draft.all_to_stable(cx);
    draft.note(
        true,
        reason::GATEWAYS_UNREACHABLE,
        "Revert",
        &format!("{message}; all traffic goes back to stable, and the rollout begins again when all gateways confirm"),
    );
    enter_step(cx, draft, 0);
    true
}

/// Only a pass, or a person, ends the analysis.
fn analyzing(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) -> bool {
    if cx.spec.paused || !traffic::is_confirmed(&draft.traffic) {
        return false;
    }
    if draft.skip || cx.spec.gates.is_empty() {
        skipped(cx, draft, pending);
        end_step(cx, draft, "skipped by a person");
        return true;
    }
    if let Some(judgement) = judging::judged(cx, draft).filter(|judgement| judgement.verdict == GateVerdict::Pass) {
        draft.gates = judgement.gates;
        end_step(cx, draft, &judgement.message);
        return true;
    }
    if cx.spec.on_hold_exceeded == HoldPolicy::Pause && is_held_too_long(cx, draft) {
        let index = draft.step_index();
        draft.enter(cx, index, Stage::Paused);
        let message = format!("no verdict after {} s: the rollout waits for a person", cx.spec.max_hold);
        draft.note(true, reason::HOLD_EXCEEDED, "Pause", &message);
        return true;
    }
    false
}

/// A person's `promote` has ended what it was for.
fn skipped(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) {
    if std::mem::take(&mut draft.skip) {
        draft.obey(cx, pending, labels::PROMOTE);
    }
}

/// Whether a hold at a weight ran out and a person is waited for.
pub(super) fn waits_at_weight(cx: &Context<'_>, draft: &Draft) -> bool {
    let paused = draft.active().is_some_and(|rollout| rollout.stage == Stage::Paused);
    paused && !cx.spec.paused && matches!(cx.spec.step(draft.step_index()), Step::Weight(_))
}

/// Whether the judge held the step for longer than it may. A person who holds the rollout is not to be hurried.
pub(super) fn is_held_too_long(cx: &Context<'_>, draft: &mut Draft) -> bool {
    let Some(rollout) = draft.active().filter(|it| it.stage == Stage::Analyzing && !cx.spec.paused) else {
        return false;
    };
    let since = rollout.stage_start_time.0;
    draft.wake(after(since, cx.spec.max_hold));
    // A pass that is there wins over the clock.
    let passed = || cx.passed(since, cx.spec.max_hold);
    passed() && judging::judged(cx, draft).is_none_or(|judgement| judgement.verdict != GateVerdict::Pass)
}

fn paused(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) -> bool {
    let Some((since, full)) = draft.active().map(|it| (it.stage_start_time.0, it.promote_full)) else { return false };
    // At a weight this is a hold that ran out: only a person ends it.
    let seconds = match cx.spec.step(draft.step_index()) {
        Step::Pause(seconds) => seconds,
        _ => None,
    };
    if let Some(seconds) = seconds {
        draft.wake(after(since, seconds));
    }
    let over = seconds.is_some_and(|seconds| cx.passed(since, seconds));
    if cx.spec.paused || !(over || full || draft.skip) {
        return false;
    }
    skipped(cx, draft, pending);
    end_step(cx, draft, "ended by a person");
    true
}

/// Green waits behind the preview address.
fn preview(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) -> bool {
    let Some((since, full)) = draft.active().map(|it| (it.stage_start_time.0, it.promote_full)) else { return false };
    if let Some(seconds) = cx.spec.auto_promotion {
        draft.wake(after(since, seconds));
    }
    let over = cx.spec.auto_promotion.is_some_and(|seconds| cx.passed(since, seconds));
    if cx.spec.paused || !(over || full || draft.skip) {
        return false;
    }
    skipped(cx, draft, pending);
    end_step(cx, draft, "");
    true
}

/// The end: the candidate has all traffic, confirmed, and all its pods; when the probation is over it is stable.
fn probation(cx: &Context<'_>, draft: &mut Draft, pending: &mut Pending) -> bool {
    let Some((since, full)) = draft.active().map(|it| (it.stage_start_time.0, it.promote_full)) else { return false };
    draft.wake(after(since, cx.spec.probation));
    let over = full || draft.skip || cx.passed(since, cx.spec.probation);
    if cx.spec.paused || !over || !traffic::is_confirmed(&draft.traffic) || !sizing::has_capacity(cx, draft) {
        return false;
    }
    skipped(cx, draft, pending);
    promote(cx, draft);
    true
}

fn promote(cx: &Context<'_>, draft: &mut Draft) {
    let Some(candidate) = draft.candidate().map(str::to_owned) else { return };
    let message = format!("version {} has all traffic", cx.version(&candidate));
    draft.close_step(cx, &message);
    draft.record(cx, Outcome::Promoted, reason::PROMOTED, &message);
    draft.rollout = None;
    draft.stable = Some(candidate.clone());
    // A generation of its own: until it is confirmed, gateways may still send what the shield replays to the old revision.
    draft.write(cx, traffic::only(&candidate), None);
    draft.note(false, reason::PROMOTED, "Promote", &message);
}
