//! Writes to ReplicaSets what would be needed if the status were lost.

use slipway_crds::v1alpha1::Stage;

use crate::action::Action;
use crate::context::Context;
use crate::draft::Draft;
use crate::marks::Marks;
use crate::observed::ReplicaSetView;
use crate::time::after;

/// Marks the stable ReplicaSet, and the one whose rollout was taken back, where they do not say so already.
pub(crate) fn actions(cx: &Context<'_>, draft: &Draft, actions: &mut Vec<Action>) {
    for set in super::scale::sorted(cx) {
        let marks = wanted(cx, draft, set);
        if marks != set.marks {
            actions.push(Action::Mark { name: set.name.clone(), uid: set.uid.clone(), marks });
        }
    }
}

fn wanted(cx: &Context<'_>, draft: &Draft, set: &ReplicaSetView) -> Marks {
    let revision = Some(set.revision.as_str());
    let mut marks = Marks { stable_since: set.marks.stable_since, aborted: None };
    if draft.stable.as_deref() == revision {
        let others = cx.sets().filter(|it| it.revision != set.revision).filter_map(|it| it.marks.stable_since).max();
        if marks.stable_since.is_none_or(|at| others.is_some_and(|other| other >= at)) {
            // Later than any other, also after a clock was set back.
            marks.stable_since = Some(others.map_or(cx.stamp(), |other| cx.stamp().max(after(other, 1))));
        }
    }
    let aborted =
        draft.rollout.as_ref().filter(|it| it.stage == Stage::Aborted && Some(it.revision.as_str()) == revision);
    marks.aborted = aborted.and_then(|it| it.abort.as_ref()).map(|abort| (abort.time.0, abort.reason.clone()));
    // Seconds are all that is kept: a difference below would be written for ever.
    if let (Some((at, reason)), Some((old, before))) = (&marks.aborted, &set.marks.aborted)
        && at.as_second() == old.as_second()
        && reason == before
    {
        marks.aborted.clone_from(&set.marks.aborted);
    }
    marks
}
