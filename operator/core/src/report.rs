//! Builds the conditions, each with the numbers of what the rollout waits for.

mod conflicts;
mod progress;
mod restart;
mod service;
mod stalled;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use slipway_crds::conditions::{self, reason};
use slipway_crds::v1alpha1::{GateVerdict, ModelDeploymentStatus, RolloutStage};
use slipway_judge::worst_verdict;

use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::observed::UpdatePermission;
use crate::text::clip_message;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Undetermined.
    Unknown,
}

impl ConditionStatus {
    /// The value in the API.
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition under construction.
pub(crate) struct ConditionDraft {
    pub(crate) status: ConditionStatus,
    /// Reason in CamelCase.
    pub(crate) reason: String,
    /// Message for users.
    pub(crate) message: String,
}

impl ConditionDraft {
    pub(crate) fn new(status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn new_true(reason: &str, message: impl Into<String>) -> Self {
        Self::new(ConditionStatus::True, reason, message)
    }
}

/// The conditions: `Ready` always, the others while they hold. `Stalled` and `Reconciling` never
/// hold together, because kstatus evaluates only the first. The time of the last transition changes
/// only with the status.
pub(crate) fn build_conditions(cx: &PlanContext<'_>, draft: &PlanDraft) -> Vec<Condition> {
    let (mut stalled, mut reconciling) =
        (stalled::stalled_condition(cx, draft), progress::reconciling_condition(cx, draft));
    if let Some(stalled) = &mut stalled {
        let more = reconciling.take().filter(|it| !stalled.message.contains(&it.message));
        stalled.message.extend(more.map(|it| format!("; {}", it.message)));
    }
    let mut draft = |kind: &str| match kind {
        conditions::READY => Some(service::ready_condition(cx, draft)),
        conditions::STALLED => stalled.take(),
        conditions::RECONCILING => reconciling.take(),
        conditions::GATE_PASSED => gate_passed(cx, draft),
        conditions::ROLLED_BACK => rolled_back(cx, draft),
        conditions::CONFLICTED => conflicts::conflicted_condition(cx),
        conditions::GATEWAY_OUTDATED => gateway_outdated(cx),
        conditions::OUTDATED_IMAGE => restart::outdated_images(cx, draft),
        _ => progress::paused_condition(cx, draft),
    };
    conditions::TYPES
        .iter()
        .filter_map(|kind| draft(kind).map(|draft| build_condition(cx, kind, draft)))
        .collect()
}

/// The status of a ModelDeployment that cannot be planned: unchanged, with the reason.
/// `Reconciling` is removed, because its current state is not known.
pub fn stalled_status(
    mut status: ModelDeploymentStatus,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> ModelDeploymentStatus {
    let old =
        status.conditions.iter().find(|it| it.type_ == conditions::STALLED && it.status == "True");
    let since = old.map_or_else(|| Time(now), |old| old.last_transition_time.clone());
    status
        .conditions
        .retain(|it| it.type_ != conditions::STALLED && it.type_ != conditions::RECONCILING);
    let stalled = Condition {
        type_: conditions::STALLED.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: clip_message(message),
        observed_generation: generation,
        last_transition_time: since,
    };
    let place = status.conditions.iter().take_while(|it| it.type_ == conditions::READY).count();
    status.conditions.insert(place, stalled);
    (status.state, status.message) = summarize_conditions(&status.conditions);
    status
}

/// State and message for display: of a problem if there is one, otherwise of what is in progress,
/// otherwise of what serves.
pub(crate) fn summarize_conditions(all: &[Condition]) -> (String, String) {
    let find =
        |kind: &str, status: &str| all.iter().find(|it| it.type_ == kind && it.status == status);
    let draft = find(conditions::STALLED, "True")
        .or_else(|| find(conditions::READY, "False"))
        .or_else(|| find(conditions::RECONCILING, "True"))
        .or_else(|| find(conditions::READY, "True"));
    draft.map(|it| (it.reason.clone(), it.message.clone())).unwrap_or_default()
}

fn build_condition(cx: &PlanContext<'_>, kind: &str, draft: ConditionDraft) -> Condition {
    let old = cx.stored_status.conditions.iter().find(|old| old.type_ == kind);
    let since = old
        .filter(|old| old.status == draft.status.as_str())
        .map(|old| old.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: draft.status.as_str().to_owned(),
        reason: draft.reason,
        message: clip_message(&draft.message),
        observed_generation: Some(cx.spec.generation),
        last_transition_time: since.unwrap_or_else(|| Time(cx.now_seconds())),
    }
}

/// Present during a rollout, and while the verdict that ended one is in the status.
fn gate_passed(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let Some(verdict) = worst_verdict(&draft.gates) else {
        draft.active_rollout()?;
        let why = match cx.spec.gates.is_empty() {
            true => "there are no gates: steps advance when they are confirmed",
            false => "nothing was judged at this weight yet",
        };
        return Some(ConditionDraft::new(ConditionStatus::Unknown, reason::NO_VERDICT, why));
    };
    let (status, reason) = match verdict {
        GateVerdict::Pass => (ConditionStatus::True, reason::PASS),
        GateVerdict::Fail => (ConditionStatus::False, reason::FAIL),
        GateVerdict::NeedMoreData => (ConditionStatus::Unknown, reason::NEED_MORE_DATA),
        GateVerdict::NoData => (ConditionStatus::Unknown, reason::NO_DATA),
        GateVerdict::ProviderDown => (ConditionStatus::Unknown, reason::PROVIDER_DOWN),
    };
    Some(ConditionDraft::new(status, reason, gate_summary(draft, verdict)))
}

/// The gates with a given verdict, with their numbers.
pub(crate) fn gate_summary(draft: &PlanDraft, verdict: GateVerdict) -> String {
    let gates = draft.gates.iter().filter(|gate| gate.verdict == verdict);
    let texts: Vec<String> = gates.map(|gate| format!("{}: {}", gate.name, gate.message)).collect();
    texts.join("; ")
}

/// The judge's reasons for the current verdict.
pub(crate) fn verdict_summary(draft: &PlanDraft) -> String {
    worst_verdict(&draft.gates).map_or_else(
        || "waits for the first reading".to_owned(),
        |verdict| gate_summary(draft, verdict),
    )
}

/// Absent while the gateway only waits for its turn: an update that goes well changes the status of
/// no ModelDeployment.
fn gateway_outdated(cx: &PlanContext<'_>) -> Option<ConditionDraft> {
    if let Some(problem) = &cx.observed.settings.gateway_problem {
        return Some(ConditionDraft::new_true(reason::INVALID_GATEWAY_SETTINGS, problem));
    }
    match &cx.observed.gateway.update {
        UpdatePermission::Stopped(why) => {
            Some(ConditionDraft::new_true(reason::UPDATE_STOPPED, why))
        }
        _ => None,
    }
}

fn rolled_back(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<ConditionDraft> {
    let rollout =
        draft.rollout.as_ref().filter(|rollout| rollout.stage == RolloutStage::Aborted)?;
    let (abort, version) = (rollout.abort.as_ref()?, cx.version(&rollout.revision));
    Some(ConditionDraft::new_true(
        &abort.reason,
        format!("version {version} was taken back: {}", abort.message),
    ))
}
