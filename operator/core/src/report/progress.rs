//! What the rollout does or waits for.

use slipway_crds::conditions::reason;
use slipway_crds::v1alpha1::{RolloutStage, RolloutStatus};

use super::{ConditionDraft, verdict_summary};
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::time::add_seconds;
use crate::validate::RolloutStep;
use crate::{sizing, traffic};

const PROMOTE: &str = "`kubectl slipway promote` goes on";

/// What is in progress, and what it waits for: a rollout, or missing pods.
pub(super) fn reconciling_condition(
    cx: &PlanContext<'_>,
    draft: &PlanDraft,
) -> Option<ConditionDraft> {
    let rollout = draft.active_rollout();
    let Some(rollout) = rollout else {
        return super::restart::running_restart(cx, draft)
            .or_else(|| super::service::missing_pods(cx, draft));
    };
    let version = cx.version(&rollout.revision);
    let ConditionDraft { reason, message: wait, .. } = waiting_condition(cx, draft, rollout);
    let held = cx.spec.paused && rollout.stage != RolloutStage::Confirming;
    let reason = if held { reason::USER_PAUSED } else { reason.as_str() };
    let restart = super::restart::waiting_note(draft);
    let hold = if held { format!("{}; ", holder_message(cx, draft)) } else { String::new() };
    Some(ConditionDraft::new_true(
        reason,
        format!("version {version}, step {}: {hold}{wait}{restart}", rollout.step),
    ))
}

/// The revision of the spec was rolled back, and is not retried automatically.
pub(super) fn aborted_condition(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let rollout =
        draft.rollout.as_ref().filter(|rollout| rollout.stage == RolloutStage::Aborted)?;
    let version = cx.version(&rollout.revision);
    let next = "change the spec, or `kubectl slipway retry`";
    let Some(abort) = &rollout.abort else {
        // Another client removed it from the status; the revision is still not retried
        // automatically.
        let message = format!(
            "version {version} was taken back, and the status does not say any more why; {next}"
        );
        return Some(ConditionDraft::new_true(reason::USER_ABORTED, message));
    };
    let left = match &abort.traffic_left_time {
        Some(at) => format!("no gateway sends to it since {}", at.0),
        None => format!("its traffic leaves: {}", confirmation_message(cx, draft)),
    };
    let message = format!("version {version} was taken back: {}; {left}; {next}", abort.message);
    Some(ConditionDraft::new_true(&abort.reason, message))
}

/// The judge reached no verdict in time, and the rollout waits for a user.
pub(super) fn held_condition(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let rollout = draft.active_rollout().filter(|rollout| rollout.stage == RolloutStage::Paused)?;
    if cx.spec.paused || matches!(cx.spec.step(draft.step_index()), RolloutStep::Pause(_)) {
        return None;
    }
    let held = pause_condition(
        cx,
        draft,
        rollout.stage_start_time.0,
        &traffic::format_permille(draft.weight()),
    );
    let version = cx.version(&rollout.revision);
    let message = format!("version {version}, step {}: {}", rollout.step, held.message);
    Some(ConditionDraft { message, ..held })
}

fn waiting_condition(
    cx: &PlanContext<'_>,
    draft: &PlanDraft,
    rollout: &RolloutStatus,
) -> ConditionDraft {
    let since = rollout.stage_start_time.0;
    let weight = traffic::format_permille(draft.weight());
    match rollout.stage {
        RolloutStage::Scaling => {
            let (have, want) =
                (cx.capacity(&rollout.revision), sizing::candidate_replicas(cx, draft));
            let next = traffic::format_permille(cx.spec.weight_at(draft.step_index()));
            let trouble = super::service::revision_problem(cx, &rollout.revision);
            if have >= want && !cx.gateways_up_to_date() {
                return ConditionDraft::new_true(
                    gateway_wait_reason(cx, draft),
                    format!("before weight {next}: {}", confirmation_message(cx, draft)),
                );
            }
            ConditionDraft::new_true(
                reason::SCALING_CANDIDATE,
                format!("waits for {have} of {want} pods before weight {next}{trouble}"),
            )
        }
        RolloutStage::Confirming => ConditionDraft::new_true(
            reason::WAITING_FOR_CONFIRMATION,
            format!("weight {weight}: {}", confirmation_message(cx, draft)),
        ),
        RolloutStage::Analyzing => ConditionDraft::new_true(
            reason::ANALYZING,
            format!("weight {weight} is judged: {}{}", verdict_summary(draft), unshielded_note(cx)),
        ),
        RolloutStage::Paused => pause_condition(cx, draft, since, &weight),
        RolloutStage::Preview => {
            ConditionDraft::new_true(reason::PREVIEW, preview_message(cx, since))
        }
        RolloutStage::Probation => {
            let until = add_seconds(since, cx.spec.probation);
            ConditionDraft::new_true(
                reason::PROBATION,
                format!("has all traffic; rollback stays armed until {until}"),
            )
        }
        RolloutStage::Aborted => ConditionDraft::new_true(reason::USER_ABORTED, String::new()),
    }
}

fn pause_condition(
    cx: &PlanContext<'_>,
    draft: &PlanDraft,
    since: jiff::Timestamp,
    weight: &str,
) -> ConditionDraft {
    match cx.spec.step(draft.step_index()) {
        RolloutStep::Pause(Some(seconds)) => ConditionDraft::new_true(
            reason::PAUSE_STEP,
            format!("pauses at weight {weight} until {}", add_seconds(since, seconds)),
        ),
        RolloutStep::Pause(None) => ConditionDraft::new_true(
            reason::PAUSE_STEP,
            format!("pauses at weight {weight} for a person; {PROMOTE}"),
        ),
        _ => {
            let (judged, unshielded) = (verdict_summary(draft), unshielded_note(cx));
            let held = format!(
                "no verdict after {} s at weight {weight}: {judged}{unshielded}",
                cx.spec.max_hold
            );
            ConditionDraft::new_true(reason::HOLD_EXCEEDED, format!("{held}; {PROMOTE}"))
        }
    }
}

/// The requests that the candidate did not receive because they were too large to be buffered;
/// without this note their absence would be unexplained. Only rough quantities, so that the status
/// is not written for each request.
fn unshielded_note(cx: &PlanContext<'_>) -> String {
    let reports = || cx.observed.gateway.pods.iter().filter_map(|pod| pod.report.as_ref());
    let unshielded: u64 = reports().map(|report| report.unshielded).sum();
    let all = unshielded.max(reports().flat_map(|report| report.requests.values()).sum());
    if unshielded == 0 {
        return String::new();
    }
    let part = match unshielded as f64 / all as f64 {
        part if part >= 0.99 => "all",
        part if part >= 0.5 => "most",
        part if part >= 0.05 => "many",
        _ => "some",
    };
    format!(
        "; {part} requests go to stable only, because their bodies are larger than what gateways keep to send them again (spec.traffic.maxRequestSize is {}), or because gateways have no memory left for them",
        cx.observed.object.spec.traffic.max_request_size.0
    )
}

fn preview_message(cx: &PlanContext<'_>, since: jiff::Timestamp) -> String {
    let wait = match cx.spec.auto_promotion {
        Some(seconds) => format!("takes the traffic at {}", add_seconds(since, seconds)),
        None => format!("waits for a person; {PROMOTE}"),
    };
    format!("is up behind the preview address; {wait}")
}

fn confirmation_message(cx: &PlanContext<'_>, draft: &PlanDraft) -> String {
    let generation = draft.traffic.generation;
    let (have, ready) = traffic::ready_at(&cx.observed.gateway, generation);
    let why = late_gateway(cx, draft).map_or_else(String::new, |why| format!("; {why}"));
    format!("{have} of {ready} gateways confirmed generation {generation}{why}")
}

/// Why a gateway has not confirmed, if it should have by now.
fn late_gateway(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<String> {
    let since = draft.rollout.as_ref()?.stage_start_time.0;
    let missing =
        traffic::missing_confirmations(&cx.observed.gateway, draft.traffic.generation, since);
    missing
        .into_iter()
        .find(|(since, _)| cx.has_elapsed(*since, traffic::LATE_SECONDS))
        .map(|(_, why)| why)
}

fn gateway_wait_reason(cx: &PlanContext<'_>, draft: &PlanDraft) -> &'static str {
    match late_gateway(cx, draft) {
        Some(_) => reason::GATEWAYS_UNREACHABLE,
        None => reason::WAITING_FOR_CONFIRMATION,
    }
}

/// What holds the rollout: a user's command or the spec.
fn holder_message(cx: &PlanContext<'_>, draft: &PlanDraft) -> String {
    match draft.active_rollout().and_then(|rollout| rollout.paused_by.as_ref()) {
        Some(user) if !cx.observed.object.spec.paused => {
            format!("{user} holds the rollout where it is; `kubectl slipway resume` goes on")
        }
        _ => "spec.paused holds the rollout where it is".to_owned(),
    }
}

/// Whether the rollout waits for a user.
pub(super) fn paused_condition(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    if cx.spec.paused {
        let message = match draft.active_rollout() {
            Some(_) => format!("{}; an abort still works", holder_message(cx, draft)),
            None => "spec.paused holds the next rollout before its first weight".to_owned(),
        };
        return Some(ConditionDraft::new_true(reason::USER_PAUSED, message));
    }
    let rollout = draft.active_rollout().filter(|rollout| rollout.stage == RolloutStage::Paused)?;
    Some(pause_condition(
        cx,
        draft,
        rollout.stage_start_time.0,
        &traffic::format_permille(draft.weight()),
    ))
}
