//! Selects the revision to roll out from the spec.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::conditions::reason;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{RolloutOutcome, RolloutStage, RolloutStatus};

use crate::command::PendingCommands;
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::{lost_status, traffic};

/// Follows the spec: to its first revision, to a new candidate, or back to stable.
pub(crate) fn follow_spec(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    pending: &mut PendingCommands,
) {
    // An invalid spec starts nothing and stops nothing.
    if cx.spec.problem.is_some() {
        return;
    }
    let asked = cx.spec.revision.clone();
    let Some(stable) = draft.stable.clone() else {
        // Before a revision serves there are no users to protect: no split and no steps.
        draft.write_weights(cx, traffic::stable_only(&asked), None);
        pending.drop_all(&mut draft.handled_commands);
        return;
    };
    if draft.candidate() == Some(asked.as_str()) {
        return;
    }
    if asked == stable {
        revert_to_stable(cx, draft);
        return;
    }
    if let Some(aborted) =
        lost_status::aborted_rollout(cx, &asked).filter(|_| lost_status::is_status_lost(cx))
    {
        draft.all_to_stable(cx);
        draft.rollout = Some(aborted);
        return;
    }
    // Commands without a target were given for the previous rollout.
    pending.drop_untargeted(&mut draft.handled_commands);
    supersede_rollout(cx, draft, &asked);
}

/// Restarts the rollout of a rolled-back candidate at its first step.
pub(super) fn retry_rollout(
    cx: &PlanContext<'_>,
    draft: &mut PlanDraft,
    pending: &mut PendingCommands,
) {
    let aborted =
        draft.rollout.as_ref().is_some_and(|rollout| rollout.stage == RolloutStage::Aborted);
    if aborted && draft.candidate() == Some(cx.spec.revision.as_str()) && cx.spec.problem.is_none()
    {
        let user = pending.user(labels::RETRY);
        begin_rollout(cx, draft, &cx.spec.revision);
        draft.record_command(cx, pending, labels::RETRY);
        draft.add_event(
            false,
            "RolloutRetried",
            "Retry",
            &format!("version {} starts again at its first step, by {user}", cx.spec.version),
        );
    }
    pending.handle(labels::RETRY, &mut draft.handled_commands);
}

fn revert_to_stable(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    let Some(rollout) = &draft.rollout else { return };
    if rollout.stage != RolloutStage::Aborted {
        let left = cx.version(&rollout.revision);
        let message = format!(
            "the spec is back at version {}; version {left} is taken out without blame",
            cx.spec.version
        );
        draft.close_step(cx, &message);
        draft.record_rollout(cx, RolloutOutcome::Superseded, reason::REVERTED, &message);
        draft.add_event(false, reason::REVERTED, "Revert", &message);
    }
    draft.rollout = None;
    draft.gates.clear();
    draft.all_to_stable(cx);
}

fn supersede_rollout(cx: &PlanContext<'_>, draft: &mut PlanDraft, asked: &str) {
    let mut message = format!("version {} is rolled out", cx.spec.version);
    if let Some(old) = draft.active_rollout().map(|rollout| rollout.revision.clone()) {
        let why =
            format!("version {} took the place of version {}", cx.spec.version, cx.version(&old));
        draft.close_step(cx, &why);
        draft.record_rollout(cx, RolloutOutcome::Superseded, reason::SUPERSEDED, &why);
        message = why;
    }
    begin_rollout(cx, draft, asked);
    draft.add_event(false, "RolloutStarted", "Rollout", &message);
}

/// Traffic first: every rollout begins with all traffic at stable, whatever the weights were.
fn begin_rollout(cx: &PlanContext<'_>, draft: &mut PlanDraft, revision: &str) {
    draft.all_to_stable(cx);
    draft.gates.clear();
    draft.rollout = Some(RolloutStatus {
        revision: revision.to_owned(),
        version: cx.version(revision),
        stage: RolloutStage::Scaling,
        step_index: 0,
        step: String::new(),
        start_time: Time(cx.now_seconds()),
        stage_start_time: Time(cx.now_seconds()),
        steps: Vec::new(),
        abort: None,
        promote_full: false,
        paused_by: None,
        commands: Vec::new(),
    });
    super::steps::enter_step(cx, draft, 0);
}
