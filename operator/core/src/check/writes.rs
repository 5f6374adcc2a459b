//! Invariants about writes, their order and their contents.

use slipway_crds::conditions::{self, GATE_PASSED, READY, RECONCILING, STALLED};

use super::{CheckedPlan, report_unless};
use crate::action::PlanAction;

/// Longest text that the API accepts, in characters.
const MAX_TEXT_BYTES: usize = 1024;

/// I9, I10, I12 and I13.
pub(super) fn check_writes(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    check_write_order(case, broken);
    check_conditions(case, broken);
    check_text_lengths(case, broken);
    let plan = case.plan;
    report_unless(broken, plan.wake_at.is_none_or(|at| at > case.now), || {
        "I10: wakes in the past: a hot loop".to_owned()
    });
    if let Some(request) = &plan.evidence {
        let confirmed = case.new.traffic.as_ref().and_then(crate::traffic::confirmed_time);
        report_unless(broken, confirmed == Some(request.since), || {
            "I12: evidence of weights that are not confirmed".to_owned()
        });
        let generation = case.new.traffic.as_ref().map(|it| it.generation);
        report_unless(broken, generation == Some(request.generation), || {
            "I12: evidence of another generation".to_owned()
        });
    }
}

/// I9: traffic moves first, and nothing is removed on a stale view.
fn check_write_order(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let takes = case.plan.actions.iter().any(|action| match action {
        PlanAction::Scale { name, replicas, .. } => case
            .observed
            .replica_sets
            .iter()
            .any(|set| set.name == *name && *replicas < set.desired),
        PlanAction::Evict { .. } => true,
        PlanAction::Delete { name, .. } => {
            case.observed.replica_sets.iter().any(|set| set.name == *name)
        }
        PlanAction::Apply(_)
        | PlanAction::Restore { .. }
        | PlanAction::Adopt { .. }
        | PlanAction::WriteReplicas { .. }
        | PlanAction::Pin { .. }
        | PlanAction::Mark { .. } => false,
    });
    report_unless(broken, case.plan.status_first || !(takes || case.weights_change()), || {
        "I9: status is not written first".to_owned()
    });
    let waits = case.plan.status_may_wait && case.plan.status_first;
    report_unless(broken, !waits, || "I9: what must be written first may wait".to_owned());
}

/// I13.
fn check_conditions(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let kinds: Vec<&str> =
        case.new.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    let known: Vec<&str> =
        conditions::TYPES.into_iter().filter(|kind| kinds.contains(kind)).collect();
    report_unless(broken, kinds == known && kinds.first() == Some(&READY), || {
        format!("I13: conditions are {kinds:?}")
    });
    let both = kinds.contains(&STALLED) && kinds.contains(&RECONCILING);
    report_unless(broken, !both, || "I13: Stalled and Reconciling at once".to_owned());
    // kstatus reports an object without these conditions as current, so no rollout may be in
    // progress.
    let busy = case.new.rollout.is_some() || case.new.stable.is_none();
    let rest = !kinds.contains(&STALLED) && !kinds.contains(&RECONCILING);
    report_unless(broken, !(busy && rest), || {
        "I13: a rollout, and neither Stalled nor Reconciling".to_owned()
    });
    for condition in &case.new.conditions {
        let whole = !condition.reason.is_empty() && !condition.message.is_empty();
        report_unless(broken, whole, || format!("I13: {} says nothing", condition.type_));
        let abnormal = ![READY, GATE_PASSED].contains(&condition.type_.as_str());
        report_unless(broken, !abnormal || condition.status == "True", || {
            format!("I13: {} does not hold", condition.type_)
        });
        let current = condition.observed_generation == Some(case.spec.generation);
        report_unless(broken, current, || {
            format!("I13: {} speaks of another generation", condition.type_)
        });
        let before = case
            .old
            .conditions
            .iter()
            .find(|old| old.type_ == condition.type_ && old.status == condition.status);
        let kept =
            before.is_none_or(|old| old.last_transition_time == condition.last_transition_time);
        report_unless(broken, kept, || {
            format!("I13: {} changed its time without a flip", condition.type_)
        });
    }
}

fn check_text_lengths(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let conditions = case.new.conditions.iter().map(|it| &it.message);
    let gates = case.new.gates.iter().map(|it| &it.message);
    let records = case.new.history.iter().map(|it| &it.message);
    let fit =
        conditions.chain(gates).chain(records).all(|text| text.chars().count() <= MAX_TEXT_BYTES);
    report_unless(broken, fit, || "I13: a text is longer than the API takes".to_owned());
    let lists = case.new.history.len() <= 10
        && case.new.rollout.as_ref().is_none_or(|it| it.steps.len() <= 64);
    report_unless(broken, lists, || "I13: a list is longer than the API takes".to_owned());
}
