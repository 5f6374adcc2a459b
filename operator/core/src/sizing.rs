//! Number of pods for each revision.

use slipway_crds::v1alpha1::RolloutStage;

use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::traffic::{self, FULL_WEIGHT};

/// Seconds after which requests in flight no longer keep pods that receive no new traffic, if
/// requests may not take longer anyway.
const DRAIN_SECONDS: i64 = 30;

/// Number of pods for a share of the traffic, if `replicas` pods serve all of it.
pub fn replicas_for_share(replicas: i32, permille: i32) -> i32 {
    let product = i64::from(replicas.max(0)) * i64::from(permille.clamp(0, FULL_WEIGHT));
    i32::try_from((product + i64::from(FULL_WEIGHT) - 1) / i64::from(FULL_WEIGHT))
        .unwrap_or(i32::MAX)
}

/// Replicas of the candidate at its current step: never fewer than its current weight and the
/// weight of the step need.
pub(crate) fn candidate_replicas(cx: &PlanContext<'_>, draft: &PlanDraft) -> i32 {
    let replicas = cx.spec.replicas;
    if cx.spec.is_blue_green() {
        return replicas.max(1);
    }
    let index = draft.step_index();
    // With an invalid list of steps the size follows the current weight.
    let step = if cx.spec.problem.is_some() { 0 } else { cx.spec.weight_at(index) };
    let by_person = cx.spec.scale_at(index).filter(|_| cx.spec.problem.is_none()).unwrap_or(0);
    replicas_for_share(replicas, step.max(draft.weight())).max(by_person).max(1)
}

/// Whether the candidate has the pods for its current step.
///
/// Pods count only if a stored status requested that many. A revision that returns may still have
/// pods that an earlier decision is about to remove, and a lagging view would show them. Once the
/// operator sees its own status, it also sees the effects of earlier writes.
pub(crate) fn has_capacity(cx: &PlanContext<'_>, draft: &PlanDraft) -> bool {
    let Some(revision) = draft.candidate() else { return false };
    let wanted = candidate_replicas(cx, draft);
    let asked = cx
        .stored_status
        .candidate
        .as_ref()
        .filter(|it| it.revision == revision)
        .map_or(0, |it| it.replicas);
    asked >= wanted && cx.capacity(revision) >= wanted
}

/// The target size of a ReplicaSet. While its model is not known, it keeps a single pod that
/// reports the digest: further pods might fetch another model from the same URI.
pub(crate) fn target_replicas(cx: &PlanContext<'_>, draft: &PlanDraft, revision: &str) -> i32 {
    let wanted = wanted_replicas(cx, draft, revision);
    match cx.replica_set(revision) {
        Some(set) if !cx.is_model_known(set) => wanted.min(set.desired.max(1)),
        _ => wanted,
    }
}

fn wanted_replicas(cx: &PlanContext<'_>, draft: &PlanDraft, revision: &str) -> i32 {
    let desired = cx.replica_set(revision).map_or(0, |set| set.desired);
    if draft.stable.as_deref() == Some(revision)
        || (draft.stable.is_none() && cx.spec.revision == revision)
    {
        return cx.spec.replicas;
    }
    if draft.active_rollout().is_some_and(|rollout| rollout.revision == revision) {
        let wanted = candidate_replicas(cx, draft);
        // A gateway that has not applied the newest weights may use any earlier ones.
        let settled = traffic::is_settled(&cx.observed.gateway, draft.traffic.generation);
        return if settled { wanted } else { wanted.max(desired) };
    }
    if desired > 0 && is_drained(cx, draft, revision) {
        return 0;
    }
    desired.max(replicas_until_drained(cx, draft, revision))
}

/// Until the gateways stop sending to a candidate that was rolled back, it keeps the pods for its
/// last weight, even if the autoscaler requests more.
fn replicas_until_drained(cx: &PlanContext<'_>, draft: &PlanDraft, revision: &str) -> i32 {
    let aborted = draft
        .rollout
        .as_ref()
        .filter(|it| it.stage == RolloutStage::Aborted && it.revision == revision);
    let left = aborted
        .is_none_or(|it| it.abort.as_ref().is_some_and(|abort| abort.traffic_left_time.is_some()));
    let last = aborted
        .filter(|_| !left)
        .and_then(|it| it.steps.last())
        .map_or(0, |step| step.weight_permille);
    replicas_for_share(cx.spec.replicas, last)
}

/// Whether the pods of a revision without weight can be removed: every gateway has confirmed that
/// it sends nothing there, the delay has passed, and no request is or could be in flight.
pub(crate) fn is_drained(cx: &PlanContext<'_>, draft: &PlanDraft, revision: &str) -> bool {
    if traffic::selects_revision(&draft.traffic, revision) {
        return false;
    }
    let Some((left_at, delay)) = drained_since(cx, draft, revision) else { return false };
    if !traffic::is_settled(&cx.observed.gateway, draft.traffic.generation) {
        return false;
    }
    let until = crate::time::add_seconds(left_at, delay);
    let at_most =
        crate::time::add_seconds(left_at, delay.max(DRAIN_SECONDS).max(cx.spec.request_timeout));
    let idle = traffic::in_flight_requests(&cx.observed.gateway, revision) == 0;
    draft.wake_at(until);
    draft.wake_at(at_most);
    cx.now >= until && (idle || cx.now >= at_most)
}

/// When the last gateway stopped sending to a revision, and for how long its pods are kept after
/// that, in seconds.
fn drained_since(
    cx: &PlanContext<'_>,
    draft: &PlanDraft,
    revision: &str,
) -> Option<(jiff::Timestamp, i64)> {
    let rollout = draft.rollout.as_ref();
    if let Some(aborted) =
        rollout.filter(|it| it.stage == RolloutStage::Aborted && it.revision == revision)
    {
        return aborted.abort.as_ref()?.traffic_left_time.as_ref().map(|time| (time.0, 0));
    }
    // The weights of the current rollout never included the revision, so their first confirmation
    // counts; later ones do not restart the delay.
    let steps = rollout
        .into_iter()
        .flat_map(|it| &it.steps)
        .filter_map(|step| step.confirmed_time.as_ref());
    let since = steps.map(|time| time.0).chain(traffic::confirmed_time(&draft.traffic)).min()?;
    Some((since, cx.spec.scale_down_delay))
}

#[cfg(test)]
mod tests {
    use super::replicas_for_share;

    #[test]
    fn shares_round_up() {
        assert_eq!(
            (
                replicas_for_share(3, 50),
                replicas_for_share(3, 333),
                replicas_for_share(3, 334),
                replicas_for_share(3, 1000)
            ),
            (1, 1, 2, 3)
        );
        assert_eq!(
            (
                replicas_for_share(10, 5),
                replicas_for_share(0, 500),
                replicas_for_share(-1, 500),
                replicas_for_share(4, 0)
            ),
            (1, 0, 0, 0)
        );
        assert_eq!(replicas_for_share(i32::MAX, 1000), i32::MAX);
    }
}
