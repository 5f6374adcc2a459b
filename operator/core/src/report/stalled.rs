//! What does not go on by itself: somebody has to change something.

use slipway_crds::conditions::{STALLED, reason};
use slipway_crds::v1alpha1::Stage;

use super::{Said, progress, restart, service};
use crate::action::HELD_BY_BUDGET;
use crate::context::Context;
use crate::draft::Draft;

/// The worst of it.
pub(super) fn stalled(cx: &Context<'_>, draft: &Draft) -> Option<Said> {
    if let Some(problem) = &cx.spec.problem {
        return Some(Said::holds(reason::INVALID_SPEC, problem));
    }
    refused(cx)
        .or_else(|| contested(draft))
        .or_else(|| first_revision(cx, draft))
        .or_else(|| restart::stalled(cx, draft))
        .or_else(|| progress::taken_back(cx, draft))
        .or_else(|| progress::held(cx, draft))
}

/// Writes that are refused. Before this process has tried one, what the status says of it stands: else it would go on for a moment at each start.
fn refused(cx: &Context<'_>) -> Option<Said> {
    let Some(refusals) = &cx.observed.refusals else {
        let mut all = cx.stored.conditions.iter();
        let old = all.find(|old| old.type_ == STALLED && old.reason == reason::WRITE_REFUSED)?;
        return Some(Said::holds(reason::WRITE_REFUSED, old.message.clone()));
    };
    // A budget that lets no pod go for now is no fault: the restart tells of it.
    let faults = refusals.values().filter(|message| !message.contains(HELD_BY_BUDGET));
    let all: Vec<&str> = faults.map(String::as_str).collect();
    (!all.is_empty()).then(|| Said::holds(reason::WRITE_REFUSED, all.join("; ")))
}

/// Somebody who keeps changing our objects breaks what is promised.
fn contested(draft: &Draft) -> Option<Said> {
    (!draft.contested.is_empty()).then(|| Said::holds(reason::WRITE_REVERTED, draft.contested.join("; ")))
}

fn first_revision(cx: &Context<'_>, draft: &Draft) -> Option<Said> {
    let none = draft.stable.is_none() && draft.rollout.as_ref().is_none_or(|it| it.stage != Stage::Aborted);
    none.then(|| service::cannot_begin(cx)).flatten().map(|(reason, message)| Said::holds(reason, message))
}
