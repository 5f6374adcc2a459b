//! Writes to ReplicaSets what would be needed if the status were lost, and reads it when it is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::v1alpha1::{AbortStatus, RolloutStatus, Stage};

use super::context::{Context, after};
use super::draft::Draft;
use crate::action::Action;
use crate::marks::Marks;
use crate::observed::ReplicaSetView;

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

/// The revision that was stable last, as the ReplicaSets say. One that was scaled down is history, unless everything is.
pub(crate) fn stable(cx: &Context<'_>) -> Option<String> {
    let up = |set: &&ReplicaSetView| set.desired > 0 || cx.spec.replicas == 0;
    let marked = cx.sets().filter(up).filter(|set| set.marks.stable_since.is_some());
    marked.max_by_key(|set| (set.marks.stable_since, set.name.clone())).map(|set| set.revision.clone())
}

/// Whether the status says nothing of what was before.
pub(crate) fn is_status_lost(cx: &Context<'_>) -> bool {
    cx.stored.stable.is_none() && cx.stored.rollout.is_none()
}

/// The rollout of a revision that was taken back before the status was lost. It stays taken back.
pub(crate) fn aborted(cx: &Context<'_>, revision: &str) -> Option<RolloutStatus> {
    let (at, reason) = cx.set(revision)?.marks.aborted.clone()?;
    let message = "it was taken back before the status was lost, which had the details".to_owned();
    Some(RolloutStatus {
        revision: revision.to_owned(),
        version: cx.version(revision),
        stage: Stage::Aborted,
        step_index: 0,
        step: String::new(),
        start_time: Time(at),
        stage_start_time: Time(at),
        steps: Vec::new(),
        abort: Some(AbortStatus { reason, message, time: Time(at), traffic_left_time: None }),
        promote_full: false,
        paused_by: None,
        commands: Vec::new(),
    })
}
