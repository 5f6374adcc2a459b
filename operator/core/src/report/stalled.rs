//! Blocked states that need a change by a user.

use slipway_crds::conditions::{STALLED, reason};
use slipway_crds::v1alpha1::RolloutStage;

use super::{ConditionDraft, progress, restart, service};
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::refusal::RefusalCause;

/// The most severe blocked state.
pub(super) fn stalled_condition(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    if let Some(problem) = &cx.spec.problem {
        return Some(ConditionDraft::new_true(reason::INVALID_SPEC, problem));
    }
    refused_writes(cx)
        .or_else(|| contested_objects(draft))
        .or_else(|| first_revision(cx, draft))
        .or_else(|| restart::stalled_restart(cx, draft))
        .or_else(|| progress::aborted_condition(cx, draft))
        .or_else(|| progress::held_condition(cx, draft))
}

/// Rejected writes. Until this process has tried a write, the refusals in the status are kept;
/// otherwise the condition would disappear for a moment at each start.
fn refused_writes(cx: &PlanContext<'_>) -> Option<ConditionDraft> {
    let Some(refusals) = &cx.observed.refusals else {
        let mut all = cx.stored_status.conditions.iter();
        let old = all.find(|old| old.type_ == STALLED && old.reason == reason::WRITE_REFUSED)?;
        return Some(ConditionDraft::new_true(reason::WRITE_REFUSED, old.message.clone()));
    };
    // A budget that lets no pod go for now is no fault: the restart tells of it.
    let faults = refusals.values().filter(|refusal| refusal.cause == RefusalCause::Fault);
    let all: Vec<&str> = faults.map(|refusal| refusal.message.as_str()).collect();
    (!all.is_empty()).then(|| ConditionDraft::new_true(reason::WRITE_REFUSED, all.join("; ")))
}

/// Clients that keep changing the operator's objects break its guarantees.
fn contested_objects(draft: &PlanDraft) -> Option<ConditionDraft> {
    (!draft.contested_objects.is_empty()).then(|| {
        ConditionDraft::new_true(reason::WRITE_REVERTED, draft.contested_objects.join("; "))
    })
}

fn first_revision(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let none = draft.stable.is_none()
        && draft.rollout.as_ref().is_none_or(|it| it.stage != RolloutStage::Aborted);
    none.then(|| service::startup_failure(cx)).flatten()
}
