//! Invariants about the progress of a rollout.

use slipway_crds::labels;
use slipway_crds::v1alpha1::{GateVerdict, RolloutStage, RolloutStatus};

use super::{CheckedPlan, report_unless};
use crate::command::PendingCommands;
use crate::traffic;
use crate::validate::{RolloutStep, is_judged};

/// I5, I6 and I8.
pub(super) fn check_steps(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let Some(old) = case.old.rollout.as_ref().filter(|it| it.stage != RolloutStage::Aborted) else {
        check_first_stable(case, broken);
        return;
    };
    if is_promoted(case, old) {
        let all = CheckedPlan::weight(&case.old, &old.revision) == traffic::FULL_WEIGHT;
        report_unless(broken, all, || "I6: promoted without all traffic".to_owned());
        let confirmed = case.old.traffic.as_ref().is_some_and(|it| {
            traffic::is_confirmed(it)
                || traffic::all_ready_at(&case.observed.gateway, it.generation)
        });
        report_unless(broken, confirmed, || {
            "I6: promoted before every gateway confirmed".to_owned()
        });
        report_unless(broken, !case.spec.paused, || {
            "I8: promoted while a person holds the rollout".to_owned()
        });
        return;
    }
    let Some(new) = case.new.rollout.as_ref().filter(|it| it.revision == old.revision) else {
        return;
    };
    if new.stage == RolloutStage::Aborted || new.start_time != old.start_time {
        return;
    }
    let (from, to) = (step_index(old), step_index(new));
    // The stored status may be corrupt; a negative share counts as none.
    let share = |of| CheckedPlan::weight(of, &old.revision).max(0);
    let rises = share(case.new) > share(&case.old);
    report_unless(broken, !(case.spec.paused && (to > from || rises)), || {
        "I8: advanced while a person holds it".to_owned()
    });
    let judged = matches!(case.spec.steps.get(from), Some(RolloutStep::Weight(weight)) if is_judged(*weight));
    // The list of steps became longer while the candidate already has all traffic: there is nothing
    // left to judge.
    if to > from && judged && share(&case.old) < traffic::FULL_WEIGHT {
        report_unless(broken, may_advance(case, old), || {
            format!("I5: step {from} ended without a pass")
        });
    }
}

fn step_index(rollout: &RolloutStatus) -> usize {
    usize::try_from(rollout.step_index).unwrap_or_default()
}

fn is_promoted(case: &CheckedPlan<'_>, old: &RolloutStatus) -> bool {
    case.new.stable.as_ref().is_some_and(|it| it.revision == old.revision)
        && case
            .old
            .stable
            .as_ref()
            .is_some_and(|it| it.revision != old.revision && revision_exists(case, &it.revision))
}

fn revision_exists(case: &CheckedPlan<'_>, revision: &str) -> bool {
    case.observed
        .replica_sets
        .iter()
        .any(|set| set.revision == revision && set.owned && !set.deleting)
}

/// I6: a revision becomes stable only by a rollout, unless no other revision exists.
fn check_first_stable(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let (Some(old), Some(new)) = (&case.old.stable, &case.new.stable) else { return };
    report_unless(
        broken,
        old.revision == new.revision || !revision_exists(case, &old.revision),
        || format!("I6: {} became stable without a rollout", new.revision),
    );
}

/// I5: a step ends by a pass of the judge on evidence of its weight, or by a user's command.
fn may_advance(case: &CheckedPlan<'_>, old: &RolloutStatus) -> bool {
    let pending = PendingCommands::for_object(&case.observed.object);
    let by_person =
        old.promote_full || pending.has(labels::PROMOTE) || pending.has(labels::PROMOTE_FULL);
    by_person || case.spec.gates.is_empty() || judge_passes(case, old)
}

fn judge_passes(case: &CheckedPlan<'_>, old: &RolloutStatus) -> bool {
    let old_traffic = case.old.traffic.clone().unwrap_or_default();
    // The confirmation itself may be part of this plan. Evidence that already exists then belongs
    // to a window that an earlier plan opened and whose write was lost.
    let confirmed_now =
        traffic::all_ready_at(&case.observed.gateway, old_traffic.generation).then_some(case.now);
    let Some(confirmed_time) = traffic::confirmed_time(&old_traffic).or(confirmed_now) else {
        return false;
    };
    let stable = case.old.stable.as_ref().map(|it| it.revision.clone()).unwrap_or_default();
    let judgement = slipway_judge::judge_gates(&slipway_judge::JudgeInput {
        gates: &case.spec.gates,
        alpha: case.spec.alpha(),
        candidate: &old.revision,
        stable: &stable,
        evidence: case.observed.evidence.as_ref(),
        generation: old_traffic.generation,
        confirmed_time,
        now: case.now,
        previous: &case.old.gates,
    });
    judgement.verdict == GateVerdict::Pass
}
