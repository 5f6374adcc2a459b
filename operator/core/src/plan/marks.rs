//! Writes to ReplicaSets the marks that are needed if the status is lost.

use slipway_crds::v1alpha1::RolloutStage;

use crate::action::PlanAction;
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::marks::RevisionMarks;
use crate::observed::ReplicaSetView;
use crate::time::add_seconds;

/// Marks the stable ReplicaSet, and the one whose rollout was rolled back, unless they already have
/// the marks.
pub(crate) fn add_mark_actions(
    cx: &PlanContext<'_>,
    draft: &PlanDraft,
    actions: &mut Vec<PlanAction>,
) {
    for set in super::scale::sorted_replica_sets(cx) {
        let marks = wanted_marks(cx, draft, set);
        if marks != set.marks {
            actions.push(PlanAction::Mark { name: set.name.clone(), uid: set.uid.clone(), marks });
        }
    }
}

fn wanted_marks(cx: &PlanContext<'_>, draft: &PlanDraft, set: &ReplicaSetView) -> RevisionMarks {
    let revision = Some(set.revision.as_str());
    let mut marks = RevisionMarks { stable_since: set.marks.stable_since, aborted: None };
    if draft.stable.as_deref() == revision {
        let others = cx
            .replica_sets()
            .filter(|it| it.revision != set.revision)
            .filter_map(|it| it.marks.stable_since)
            .max();
        if marks.stable_since.is_none_or(|at| others.is_some_and(|other| other >= at)) {
            // Later than all others, even if the clock was set back.
            marks.stable_since = Some(
                others
                    .map_or(cx.now_seconds(), |other| cx.now_seconds().max(add_seconds(other, 1))),
            );
        }
    }
    let aborted = draft
        .rollout
        .as_ref()
        .filter(|it| it.stage == RolloutStage::Aborted && Some(it.revision.as_str()) == revision);
    marks.aborted =
        aborted.and_then(|it| it.abort.as_ref()).map(|abort| (abort.time.0, abort.reason.clone()));
    // Annotations keep whole seconds; a smaller difference would cause the same write with every
    // plan.
    if let (Some((at, reason)), Some((old, before))) = (&marks.aborted, &set.marks.aborted)
        && at.as_second() == old.as_second()
        && reason == before
    {
        marks.aborted.clone_from(&set.marks.aborted);
    }
    marks
}
