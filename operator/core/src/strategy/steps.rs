//! Advances the steps of a rollout.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::conditions::reason;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{GateVerdict, HoldPolicy, RolloutOutcome, RolloutStage, StepRecord};

use super::judging;
use crate::command::PendingCommands;
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::sizing;
use crate::time::add_seconds;
use crate::traffic::{self, FULL_WEIGHT};
use crate::validate::{RolloutStep, is_judged};

/// Makes at most one transition; returns whether it did.
pub(super) fn advance_rollout(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    pending: &mut PendingCommands,
) -> bool {
    let Some(stage) = draft.active_rollout().map(|rollout| rollout.stage) else { return false };
    if cx.spec.problem.is_some() {
        return false;
    }
    if stage_matches_step(cx, draft, stage) {
        return match stage {
            RolloutStage::Scaling => advance_scaling(cx, draft),
            RolloutStage::Confirming => advance_confirming(cx, draft),
            RolloutStage::Analyzing => advance_analyzing(cx, draft, pending),
            RolloutStage::Paused => advance_paused(cx, draft, pending),
            RolloutStage::Preview => advance_preview(cx, draft, pending),
            RolloutStage::Probation => advance_probation(cx, draft, pending),
            RolloutStage::Aborted => false,
        };
    }
    true
}

/// Makes stage and step consistent. They are not if a user changed the steps during a rollout, or
/// requested full promotion; then the step starts again.
fn stage_matches_step(cx: &PlanContext<'_>, draft: &mut PlanDraft, stage: RolloutStage) -> bool {
    let last = cx.spec.full_weight_index();
    let index = draft.step_index();
    let full =
        !cx.spec.paused && draft.active_rollout().is_some_and(|rollout| rollout.promote_full);
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
        (RolloutStage::Scaling, step) => !matches!(step, RolloutStep::Pause(_)),
        (RolloutStage::Confirming | RolloutStage::Analyzing, RolloutStep::Weight(weight)) => {
            draft.weight() == weight
        }
        (RolloutStage::Paused, RolloutStep::Weight(weight)) => draft.weight() == weight,
        (RolloutStage::Paused, RolloutStep::Pause(_))
        | (RolloutStage::Preview, RolloutStep::Preview) => true,
        (RolloutStage::Probation, _) => draft.weight() == FULL_WEIGHT && index >= last,
        _ => false,
    };
    if !agree {
        enter_step(cx, draft, if stage == RolloutStage::Probation { last } else { index });
    }
    agree
}

pub(super) fn enter_step(cx: &PlanContext<'_>, draft: &mut PlanDraft, index: usize) {
    let stage = if matches!(cx.spec.step(index), RolloutStep::Pause(_)) {
        RolloutStage::Paused
    } else {
        RolloutStage::Scaling
    };
    draft.enter_stage(cx, index, stage);
    if matches!(cx.spec.step(index), RolloutStep::Pause(None)) {
        let next = format!("step {} waits for a person", index.saturating_add(1));
        draft.add_event(
            false,
            reason::PAUSE_STEP,
            "Pause",
            &format!("{next}; go on with the annotation {}", labels::PROMOTE),
        );
    }
}

fn end_step(cx: &PlanContext<'_>, draft: &mut PlanDraft, verdict: &str) {
    draft.close_step(cx, verdict);
    let next = draft.step_index().saturating_add(1);
    if next < cx.spec.steps.len() {
        enter_step(cx, draft, next);
    } else {
        draft.enter_stage(cx, next.saturating_sub(1), RolloutStage::Probation);
    }
}

/// Capacity before weight.
fn advance_scaling(cx: &PlanContext<'_>, draft: &mut PlanDraft) -> bool {
    if cx.spec.paused || !sizing::has_capacity(cx, draft) {
        return false;
    }
    match cx.spec.step(draft.step_index()) {
        // Without confirmation of the old weights, the new ones could not be confirmed either.
        RolloutStep::Weight(weight) if weight > 0 && waits_for_gateways(cx, draft) => return false,
        RolloutStep::Weight(weight) => set_weight(cx, draft, weight),
        RolloutStep::Preview => {
            let (backends, candidate) =
                (draft.traffic.backends.clone(), draft.candidate().map(str::to_owned));
            draft.write_weights(cx, backends, candidate);
            let index = draft.step_index();
            draft.enter_stage(cx, index, RolloutStage::Preview);
        }
        RolloutStep::Scale(_) | RolloutStep::Pause(_) => end_step(cx, draft, ""),
    }
    true
}

/// Whether unconfirmed weights keep the candidate from getting a share: the weight does not rise
/// until the current one is confirmed.
fn waits_for_gateways(cx: &PlanContext<'_>, draft: &PlanDraft) -> bool {
    let Some(since) = draft.active_rollout().map(|rollout| rollout.stage_start_time.0) else {
        return false;
    };
    for (since, _) in
        traffic::missing_confirmations(&cx.observed.gateway, draft.traffic.generation, since)
    {
        draft.wake_at(add_seconds(since, traffic::LATE_SECONDS));
    }
    !cx.gateways_up_to_date()
}

fn set_weight(cx: &PlanContext<'_>, draft: &mut PlanDraft, weight: i32) {
    let (Some(stable), Some(candidate)) =
        (draft.stable.clone(), draft.candidate().map(str::to_owned))
    else {
        return;
    };
    let preview = draft.traffic.preview_revision.clone();
    // At weight 0 the candidate is in no gateway's list yet; a new generation without a change
    // would only cost a confirmation.
    let new = if weight == 0 && draft.weight() == 0 {
        false
    } else {
        draft.write_weights(cx, traffic::split_weights(&stable, &candidate, weight), preview)
    };
    if new && weight < traffic::FULL_WEIGHT {
        // Series of evaluations and verdicts belong to one weight. With all traffic there is
        // nothing to compare with, so the last verdict stays; series of evaluations restart by the
        // time of the confirmation.
        draft.gates.clear();
    }
    let index = draft.step_index();
    draft.enter_stage(cx, index, RolloutStage::Confirming);
    let confirmed_time = traffic::confirmed_time(&draft.traffic).filter(|_| !new).map(Time);
    if let Some(rollout) = &mut draft.rollout {
        rollout.steps.push(StepRecord {
            weight_permille: weight,
            set_time: Time(cx.now_seconds()),
            confirmed_time,
            end_time: None,
            observed_permille: None,
            verdict: String::new(),
        });
        let surplus = rollout.steps.len().saturating_sub(64);
        rollout.steps.drain(..surplus);
    }
}

/// A step counts only from its confirmation on.
fn advance_confirming(cx: &PlanContext<'_>, draft: &mut PlanDraft) -> bool {
    if !traffic::is_confirmed(&draft.traffic) {
        return revert_unconfirmed(cx, draft);
    }
    if is_judged(draft.weight()) && !cx.spec.gates.is_empty() {
        let index = draft.step_index();
        draft.enter_stage(cx, index, RolloutStage::Analyzing);
        return true;
    }
    if cx.spec.paused {
        return false;
    }
    end_step(cx, draft, "confirmed; not judged");
    true
}

/// Unconfirmed weights can neither be judged nor reverted in time. They are reverted without
/// blaming the candidate, and the rollout starts again when all gateways confirm.
fn revert_unconfirmed(cx: &PlanContext<'_>, draft: &mut PlanDraft) -> bool {
    let Some(since) = draft
        .active_rollout()
        .map(|rollout| rollout.stage_start_time.0)
        .filter(|_| draft.weight() > 0)
    else {
        return false;
    };
    let missing =
        traffic::missing_confirmations(&cx.observed.gateway, draft.traffic.generation, since);
    for (since, _) in &missing {
        draft.wake_at(add_seconds(*since, traffic::CONFIRMATION_SECONDS));
    }
    let overdue = missing
        .into_iter()
        .find(|(since, _)| cx.has_elapsed(*since, traffic::CONFIRMATION_SECONDS));
    let Some((_, why)) = overdue else { return false };
    let weight = traffic::format_permille(draft.weight());
    let message = format!(
        "weight {weight} was not confirmed within {} s: {why}",
        traffic::CONFIRMATION_SECONDS
    );
    draft.close_step(cx, &message);
    draft.gates.clear();
    draft.all_to_stable(cx);
    draft.add_event(
        true,
        reason::GATEWAYS_UNREACHABLE,
        "Revert",
        &format!("{message}; all traffic goes back to stable, and the rollout begins again when all gateways confirm"),
    );
    enter_step(cx, draft, 0);
    true
}

/// Only a pass or a user ends the analysis.
fn advance_analyzing(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    pending: &mut PendingCommands,
) -> bool {
    if cx.spec.paused || !traffic::is_confirmed(&draft.traffic) {
        return false;
    }
    if draft.skip || cx.spec.gates.is_empty() {
        clear_skip(cx, draft, pending);
        end_step(cx, draft, "skipped by a person");
        return true;
    }
    let passed = judging::current_judgement(cx, draft)
        .filter(|judgement| judgement.verdict == GateVerdict::Pass)
        .cloned();
    if let Some(judgement) = passed {
        draft.gates = judgement.gates;
        end_step(cx, draft, &judgement.message);
        return true;
    }
    if cx.spec.on_hold_exceeded == HoldPolicy::Pause && is_held_too_long(cx, draft) {
        let index = draft.step_index();
        draft.enter_stage(cx, index, RolloutStage::Paused);
        let message =
            format!("no verdict after {} s: the rollout waits for a person", cx.spec.max_hold);
        draft.add_event(true, reason::HOLD_EXCEEDED, "Pause", &message);
        return true;
    }
    false
}

/// Records a user's `promote`, which has now taken effect.
fn clear_skip(cx: &PlanContext<'_>, draft: &mut PlanDraft, pending: &mut PendingCommands) {
    if std::mem::take(&mut draft.skip) {
        draft.record_command(cx, pending, labels::PROMOTE);
    }
}

/// Whether a hold at a weight ran out and the rollout waits for a user.
pub(super) fn waits_at_weight(cx: &PlanContext<'_>, draft: &PlanDraft) -> bool {
    let paused =
        draft.active_rollout().is_some_and(|rollout| rollout.stage == RolloutStage::Paused);
    paused && !cx.spec.paused && matches!(cx.spec.step(draft.step_index()), RolloutStep::Weight(_))
}

/// Whether the step stayed without a verdict for longer than allowed. The time does not count while
/// a user pauses the rollout.
pub(super) fn is_held_too_long(cx: &PlanContext<'_>, draft: &PlanDraft) -> bool {
    let Some(rollout) =
        draft.active_rollout().filter(|it| it.stage == RolloutStage::Analyzing && !cx.spec.paused)
    else {
        return false;
    };
    let since = rollout.stage_start_time.0;
    draft.wake_at(add_seconds(since, cx.spec.max_hold));
    // A pass has precedence over the elapsed time.
    let passed = || cx.has_elapsed(since, cx.spec.max_hold);
    passed()
        && judging::current_judgement(cx, draft)
            .is_none_or(|judgement| judgement.verdict != GateVerdict::Pass)
}

fn advance_paused(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    pending: &mut PendingCommands,
) -> bool {
    let Some((since, full)) =
        draft.active_rollout().map(|it| (it.stage_start_time.0, it.promote_full))
    else {
        return false;
    };
    // At a weight this is a hold that ran out: only a user ends it.
    let seconds = match cx.spec.step(draft.step_index()) {
        RolloutStep::Pause(seconds) => seconds,
        _ => None,
    };
    if let Some(seconds) = seconds {
        draft.wake_at(add_seconds(since, seconds));
    }
    let over = seconds.is_some_and(|seconds| cx.has_elapsed(since, seconds));
    if cx.spec.paused || !(over || full || draft.skip) {
        return false;
    }
    clear_skip(cx, draft, pending);
    end_step(cx, draft, "ended by a person");
    true
}

/// Green waits behind the preview address.
fn advance_preview(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    pending: &mut PendingCommands,
) -> bool {
    let Some((since, full)) =
        draft.active_rollout().map(|it| (it.stage_start_time.0, it.promote_full))
    else {
        return false;
    };
    if let Some(seconds) = cx.spec.auto_promotion {
        draft.wake_at(add_seconds(since, seconds));
    }
    let over = cx.spec.auto_promotion.is_some_and(|seconds| cx.has_elapsed(since, seconds));
    if cx.spec.paused || !(over || full || draft.skip) {
        return false;
    }
    clear_skip(cx, draft, pending);
    end_step(cx, draft, "");
    true
}

/// Ends the rollout: the candidate has all traffic, confirmed, and all its pods. When the probation
/// is over it becomes stable.
fn advance_probation(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    pending: &mut PendingCommands,
) -> bool {
    let Some((since, full)) =
        draft.active_rollout().map(|it| (it.stage_start_time.0, it.promote_full))
    else {
        return false;
    };
    draft.wake_at(add_seconds(since, cx.spec.probation));
    let over = full || draft.skip || cx.has_elapsed(since, cx.spec.probation);
    if cx.spec.paused
        || !over
        || !traffic::is_confirmed(&draft.traffic)
        || !sizing::has_capacity(cx, draft)
    {
        return false;
    }
    clear_skip(cx, draft, pending);
    promote_candidate(cx, draft);
    true
}

fn promote_candidate(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    let Some(candidate) = draft.candidate().map(str::to_owned) else { return };
    let message = format!("version {} has all traffic", cx.version(&candidate));
    draft.close_step(cx, &message);
    draft.record_rollout(cx, RolloutOutcome::Promoted, reason::PROMOTED, &message);
    draft.rollout = None;
    draft.stable = Some(candidate.clone());
    // This is a separate generation: until it is confirmed, gateways may still replay requests to
    // the old revision.
    draft.write_weights(cx, traffic::stable_only(&candidate), None);
    draft.add_event(false, reason::PROMOTED, "Promote", &message);
}
