//! The progress of a restart, or why it is blocked.

use slipway_crds::conditions::reason;

use super::{ConditionDraft, service};
use crate::context::PlanContext;
use crate::draft::{ActiveRestart, PlanDraft, RestartState};
use crate::refusal::RefusalCause;

/// The progress of the replacement of pods created before `spec.restartTime`.
pub(super) fn running_restart(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let Some(ActiveRestart { requested_at: asked, state: RestartState::Running { done } }) =
        &draft.restart
    else {
        return None;
    };
    let wanted = cx.spec.replicas;
    let held = cx.observed.refusals.iter().flat_map(|all| all.values());
    let held = held
        .filter(|refusal| refusal.cause == RefusalCause::Budget)
        .map(|refusal| format!("; tried again: {}", refusal.message));
    let missing = service::missing_pods(cx, draft).map(|it| format!("; {}", it.message));
    let rest: String = held.chain(missing).collect();
    let message = format!(
        "spec.restartTime {asked}: {done} of {wanted} pods are new and ready, one is replaced at a time"
    );
    Some(ConditionDraft::new_true(reason::RESTARTING, message + &rest))
}

/// Why the restart needs a user.
pub(super) fn stalled_restart(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let ActiveRestart { requested_at: asked, state } = draft.restart.as_ref()?;
    let why = match state {
        RestartState::AfterRollout | RestartState::Running { .. } => return None,
        RestartState::NotReady { pod, since } => {
            let trouble = draft.stable.as_ref().map(|stable| service::revision_problem(cx, stable)).unwrap_or_default();
            format!(
                "pod {pod}, which is there since {since}, does not get ready{trouble}; no further pod is replaced until it is. Mend what is wrong, and set spec.restartTime again to make it anew"
            )
        }
        RestartState::NoBudget => {
            "spec.disruptionBudget.maxUnavailable lets no pod go; let one go, at least for as long as the restart takes"
                .to_owned()
        }
    };
    Some(ConditionDraft::new_true(
        reason::RESTART_STALLED,
        format!("spec.restartTime {asked}: {why}"),
    ))
}

/// A note that the restart waits for the rollout, appended to the rollout's message.
pub(super) fn waiting_note(draft: &PlanDraft) -> String {
    match &draft.restart {
        Some(ActiveRestart { requested_at: asked, state: RestartState::AfterRollout }) => {
            format!("; the restart of spec.restartTime {asked} waits for its end")
        }
        _ => String::new(),
    }
}

/// Whether new pods would have another operator-supplied image. Pods get it only on request: an
/// upgrade of the operator restarts nothing.
pub(super) fn outdated_images(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let pairs: Vec<String> = draft
        .outdated_images
        .iter()
        .map(|(before, now)| format!("{before}, and new pods would have {now}"))
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let name = &cx.spec.name;
    let remedy = format!(
        "`kubectl slipway restart {name}`, or spec.restartTime, replaces them one at a time"
    );
    Some(ConditionDraft::new_true(
        reason::IMAGE_CHANGED,
        format!("pods have image {}; {remedy}", pairs.join("; image ")),
    ))
}
