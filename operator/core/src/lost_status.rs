//! Recovery of the history from the marks of ReplicaSets after the status was lost.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::v1alpha1::{AbortStatus, RolloutStage, RolloutStatus};

use crate::context::PlanContext;
use crate::observed::ReplicaSetView;

/// The last stable revision according to the marks of the ReplicaSets. A ReplicaSet that is scaled
/// down belongs to the history, unless all are.
pub(crate) fn last_stable_revision(cx: &PlanContext<'_>) -> Option<String> {
    let up = |set: &&ReplicaSetView| set.desired > 0 || cx.spec.replicas == 0;
    let marked = cx.replica_sets().filter(up).filter(|set| set.marks.stable_since.is_some());
    marked
        .max_by_key(|set| (set.marks.stable_since, set.name.clone()))
        .map(|set| set.revision.clone())
}

/// Whether the status contains nothing about the past.
pub(crate) fn is_status_lost(cx: &PlanContext<'_>) -> bool {
    cx.stored_status.stable.is_none() && cx.stored_status.rollout.is_none()
}

/// The rollout of a revision that was rolled back before the status was lost. It stays rolled back.
pub(crate) fn aborted_rollout(cx: &PlanContext<'_>, revision: &str) -> Option<RolloutStatus> {
    let (at, reason) = cx.replica_set(revision)?.marks.aborted.clone()?;
    let message = "it was taken back before the status was lost, which had the details".to_owned();
    Some(RolloutStatus {
        revision: revision.to_owned(),
        version: cx.version(revision),
        stage: RolloutStage::Aborted,
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
