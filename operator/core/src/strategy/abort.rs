//! Rolls a candidate back. Traffic moves first and unconditionally, independent of the candidate's
//! health.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use slipway_crds::conditions::reason;
use slipway_crds::labels::ABORT;
use slipway_crds::v1alpha1::{AbortStatus, GateVerdict, HoldPolicy, RolloutOutcome, RolloutStage};
use slipway_judge::MIN_EVENTS_TO_FAIL;

use super::judging;
use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::text::clip_message;
use crate::time::add_seconds;
use crate::{sizing, traffic};

/// Reasons for rolling a candidate back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AbortReason {
    Braked,
    ModelLoadFailed,
    GateFailed,
    ProgressDeadlineExceeded,
    NeverAnswered,
    HoldExceeded,
    UserAborted,
}

impl AbortReason {
    /// The reason in the status.
    fn as_str(self) -> &'static str {
        match self {
            Self::Braked => reason::BRAKED,
            Self::ModelLoadFailed => reason::MODEL_LOAD_FAILED,
            Self::GateFailed => reason::GATE_FAILED,
            Self::ProgressDeadlineExceeded => reason::PROGRESS_DEADLINE_EXCEEDED,
            Self::NeverAnswered => reason::NEVER_ANSWERED,
            Self::HoldExceeded => reason::HOLD_EXCEEDED,
            Self::UserAborted => reason::USER_ABORTED,
        }
    }

    /// The outcome of the rollout in the history.
    fn outcome(self) -> RolloutOutcome {
        match self {
            Self::UserAborted => RolloutOutcome::Aborted,
            _ => RolloutOutcome::RolledBack,
        }
    }
}

/// Why a candidate is rolled back.
struct AbortCause {
    reason: AbortReason,
    /// Message for users.
    message: String,
}

/// Rolls the candidate back if there is a reason. Returns whether it did.
pub(super) fn abort_if_needed(cx: &PlanContext<'_>, draft: &mut PlanDraft) -> bool {
    if draft.active_rollout().is_none() {
        return false;
    }
    let mut found = brake_tripped(cx, draft).or_else(|| load_failed(cx, draft));
    if found.is_none() {
        judging::judge_candidate(cx, draft);
        found = gate_failed(cx, draft)
            .or_else(|| deadline_exceeded(cx, draft))
            .or_else(|| never_answered(cx, draft))
            .or_else(|| held_too_long(cx, draft));
    }
    let Some(cause) = found else { return false };
    if cause.reason == AbortReason::GateFailed
        && let Some(judgement) = judging::current_judgement(cx, draft)
    {
        draft.gates = judgement.gates.clone();
    }
    abort_rollout(cx, draft, &cause);
    true
}

/// Rolls the candidate back on a user's command; does nothing if there is none.
pub(super) fn abort_by_person(cx: &PlanContext<'_>, draft: &mut PlanDraft, user: &str) {
    if draft.active_rollout().is_some() {
        let message = format!("aborted by {user} (annotation {ABORT})");
        abort_rollout(cx, draft, &AbortCause { reason: AbortReason::UserAborted, message });
    }
}

/// Records the time since which no gateway sends requests to the candidate.
pub(crate) fn note_traffic_left(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    let settled = traffic::is_confirmed(&draft.traffic)
        && traffic::is_settled(&cx.observed.gateway, draft.traffic.generation);
    let abort = draft.rollout.as_mut().and_then(|rollout| rollout.abort.as_mut());
    if let Some(abort) = abort.filter(|abort| settled && abort.traffic_left_time.is_none()) {
        abort.traffic_left_time = Some(Time(cx.now_seconds()));
    }
}

fn abort_rollout(cx: &PlanContext<'_>, draft: &mut PlanDraft, cause: &AbortCause) {
    let (reason, message) = (cause.reason.as_str(), cause.message.as_str());
    draft.close_step(cx, message);
    draft.record_rollout(cx, cause.reason.outcome(), reason, message);
    let index = draft.step_index();
    draft.enter_stage(cx, index, RolloutStage::Aborted);
    let Some(rollout) = &mut draft.rollout else { return };
    (rollout.promote_full, rollout.paused_by) = (false, None);
    rollout.abort = Some(AbortStatus {
        reason: reason.to_owned(),
        message: clip_message(message),
        time: Time(cx.now_seconds()),
        traffic_left_time: None,
    });
    let version = cx.version(&rollout.revision);
    draft.all_to_stable(cx);
    draft.add_event(true, reason, "Abort", &format!("version {version} is taken back: {message}"));
}

/// The brake of a gateway acted under the current weights, or still holds under them. An older one
/// applies to weights that are no longer in effect.
fn brake_tripped(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<AbortCause> {
    let candidate = draft.candidate().filter(|_| draft.weight() > 0)?;
    let generation = draft.traffic.generation;
    cx.observed.gateway.pods.iter().find_map(|pod| {
        let report = pod.report.as_ref()?;
        let brake = report.brake.as_ref().filter(|brake| brake.revision == candidate)?;
        let current = brake.generation == generation || report.generation == generation;
        current.then(|| {
            let counts = format!("{} of {} requests failed", brake.failures, brake.requests);
            let message = format!("gateway {} took it out: {} ({counts})", pod.name, brake.reason);
            AbortCause { reason: AbortReason::Braked, message }
        })
    })
}

/// The line that the model server writes if it cannot load its model.
#[derive(Deserialize)]
pub(crate) struct LoadFailure {
    /// What failed.
    pub(crate) reason: String,
    /// Message for users.
    pub(crate) message: String,
    /// Whether a retry cannot succeed.
    pub(crate) permanent: bool,
}

impl LoadFailure {
    pub(crate) fn for_revision(cx: &PlanContext<'_>, revision: &str) -> Option<Self> {
        let ours = cx
            .observed
            .pod_problems
            .iter()
            .filter(|problem| problem.revision == revision && problem.restarts >= 1);
        ours.filter_map(|problem| Self::parse(&problem.message)).find(|it| it.permanent)
    }

    /// Parses the message of a container; `None` if it is not such a line.
    pub(crate) fn parse(message: &str) -> Option<Self> {
        serde_json::from_str(message.trim()).ok()
    }
}

fn load_failed(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<AbortCause> {
    let candidate = draft.candidate()?;
    // If all its pods are available, the line belongs to a pod that has been replaced.
    if sizing::has_capacity(cx, draft) {
        return None;
    }
    let failure = LoadFailure::for_revision(cx, candidate)?;
    let message = format!("{}: {}", failure.reason, failure.message);
    Some(AbortCause { reason: AbortReason::ModelLoadFailed, message })
}

fn gate_failed(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<AbortCause> {
    let judgement = judging::current_judgement(cx, draft)
        .filter(|judgement| judgement.verdict == GateVerdict::Fail)?;
    Some(AbortCause { reason: AbortReason::GateFailed, message: judgement.message.clone() })
}

/// Counted from the start of the stage in the status, so that replaced pods do not reset the
/// deadline.
fn deadline_exceeded(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<AbortCause> {
    let rollout =
        draft.active_rollout().filter(|rollout| rollout.stage == RolloutStage::Scaling)?;
    let (since, candidate) = (rollout.stage_start_time.0, rollout.revision.clone());
    if sizing::has_capacity(cx, draft) {
        return None;
    }
    draft.wake_at(add_seconds(since, cx.spec.progress_deadline));
    if !cx.has_elapsed(since, cx.spec.progress_deadline) {
        return None;
    }
    let (have, want) = (cx.capacity(&candidate), sizing::candidate_replicas(cx, draft));
    let mut message =
        format!("{have} of {want} pods are available after {} s", cx.spec.progress_deadline);
    if let Some(problem) =
        cx.observed.pod_problems.iter().find(|problem| problem.revision == candidate)
    {
        message
            .push_str(&format!("; pod {}: {}: {}", problem.pod, problem.reason, problem.message));
    }
    Some(AbortCause { reason: AbortReason::ProgressDeadlineExceeded, message })
}

/// A hold ended at a weight at which the candidate never answered a request. Waiting for a user
/// would fail this share of the requests for as long as that takes, and the gates cannot pass. This
/// needs requests, and the reports of every gateway: without traffic or reports there is no
/// rollback.
fn never_answered(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<AbortCause> {
    let held =
        super::steps::is_held_too_long(cx, draft) || super::steps::waits_at_weight(cx, draft);
    // A user who skips the step accepts the consequences.
    let ordered = draft.skip || draft.active_rollout().is_some_and(|rollout| rollout.promote_full);
    let candidate = draft.candidate().filter(|_| held && !ordered && draft.weight() > 0)?;
    let generation = draft.traffic.generation;
    let (ended, answered) = traffic::ended_requests(&cx.observed.gateway, generation, candidate)?;
    // A new gateway counts from 0; Prometheus may have earlier answers.
    let known = cx.observed.evidence.as_ref().filter(|evidence| evidence.generation == generation);
    let answers = answered > 0
        || known.is_some_and(|evidence| slipway_judge::has_good_events(evidence, candidate));
    if answers || (ended as f64) < MIN_EVENTS_TO_FAIL {
        return None;
    }
    let weight = traffic::format_permille(draft.weight());
    let held = format!("no verdict after {} s at weight {weight}", cx.spec.max_hold);
    let message = format!("{held}, and none of {ended} requests to the candidate was answered");
    Some(AbortCause { reason: AbortReason::NeverAnswered, message })
}

/// Only if the spec requests an abort; otherwise the step waits for a user.
fn held_too_long(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<AbortCause> {
    if cx.spec.on_hold_exceeded != HoldPolicy::Abort || !super::steps::is_held_too_long(cx, draft) {
        return None;
    }
    let why = judging::current_judgement(cx, draft)
        .map(|judgement| judgement.message.as_str())
        .unwrap_or_default();
    let message = format!("no verdict after {} s: {why}", cx.spec.max_hold);
    Some(AbortCause { reason: AbortReason::HoldExceeded, message })
}
