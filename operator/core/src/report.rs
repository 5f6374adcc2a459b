//! What people are told: the conditions, each with the numbers of what is waited for.

mod conflicts;
mod progress;
mod service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use slipway_crds::conditions::{self, reason};
use slipway_crds::v1alpha1::{GateVerdict, Stage};

use crate::observed::GatewayUpdate;
use crate::plan::{Context, Draft, clipped};

/// One condition in the making.
pub(crate) struct Said {
    /// `True`, `False` or `Unknown`.
    pub(crate) status: &'static str,
    /// CamelCase.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
}

impl Said {
    pub(crate) fn new(status: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn is(truth: bool, reason: &str, message: impl Into<String>) -> Self {
        Self::new(if truth { "True" } else { "False" }, reason, message)
    }
}

/// All conditions, always all of them. The time of the last transition is kept unless the status flips.
pub(crate) fn conditions(cx: &Context<'_>, draft: &Draft) -> Vec<Condition> {
    let said = |kind: &str| match kind {
        conditions::READY => service::ready(cx, draft),
        conditions::AVAILABLE => service::available(cx, draft),
        conditions::PROGRESSING => progress::progressing(cx, draft),
        conditions::GATE_PASSED => gate_passed(cx, draft),
        conditions::ROLLED_BACK => rolled_back(cx, draft),
        conditions::CONFLICTED => conflicts::conflicted(cx),
        conditions::GATEWAY_OUTDATED => gateway_outdated(cx),
        _ => progress::paused(cx, draft),
    };
    conditions::TYPES.iter().map(|kind| condition(cx, kind, said(kind))).collect()
}

fn condition(cx: &Context<'_>, kind: &str, said: Said) -> Condition {
    let old = cx.stored.conditions.iter().find(|old| old.type_ == kind);
    let since = old.filter(|old| old.status == said.status).map(|old| old.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: said.status.to_owned(),
        reason: said.reason,
        message: clipped(&said.message),
        observed_generation: Some(cx.spec.generation),
        last_transition_time: since.unwrap_or_else(|| Time(cx.stamp())),
    }
}

fn gate_passed(cx: &Context<'_>, draft: &Draft) -> Said {
    let Some(verdict) = overall(draft) else {
        let why = match draft.active() {
            Some(_) if cx.spec.gates.is_empty() => "there are no gates: steps advance when they are confirmed",
            Some(_) => "nothing was judged at this weight yet",
            None => "no rollout goes on",
        };
        return Said::new("Unknown", reason::NO_VERDICT, why);
    };
    let (status, reason) = match verdict {
        GateVerdict::Pass => ("True", reason::PASS),
        GateVerdict::Fail => ("False", reason::FAIL),
        GateVerdict::NeedMoreData => ("Unknown", reason::NEED_MORE_DATA),
        GateVerdict::NoData => ("Unknown", reason::NO_DATA),
        GateVerdict::ProviderDown => ("Unknown", reason::PROVIDER_DOWN),
    };
    Said::new(status, reason, told(draft, verdict))
}

/// The verdict over all gates as they are written in status; nothing without any.
fn overall(draft: &Draft) -> Option<GateVerdict> {
    use GateVerdict::{Fail, NeedMoreData, NoData, Pass, ProviderDown};
    let order = [Fail, ProviderDown, NoData, NeedMoreData, Pass];
    order.into_iter().find(|verdict| draft.gates.iter().any(|gate| gate.verdict == *verdict))
}

/// The gates that make a verdict, with their numbers.
pub(crate) fn told(draft: &Draft, verdict: GateVerdict) -> String {
    let gates = draft.gates.iter().filter(|gate| gate.verdict == verdict);
    let texts: Vec<String> = gates.map(|gate| format!("{}: {}", gate.name, gate.message)).collect();
    texts.join("; ")
}

/// What the judge holds for, or why it holds no longer.
pub(crate) fn judged(draft: &Draft) -> String {
    overall(draft).map_or_else(|| "waits for the first reading".to_owned(), |verdict| told(draft, verdict))
}

/// Also while it only waits for its turn, `False`: an update changes the status of no ModelDeployment as long as it goes well.
fn gateway_outdated(cx: &Context<'_>) -> Said {
    match &cx.observed.gateway.update {
        GatewayUpdate::Stopped(why) => Said::new("True", reason::UPDATE_STOPPED, why),
        _ => Said::new("False", reason::NONE, "the gateway is up to date, or is updated in its turn"),
    }
}

fn rolled_back(cx: &Context<'_>, draft: &Draft) -> Said {
    let aborted = draft.rollout.as_ref().filter(|rollout| rollout.stage == Stage::Aborted);
    let Some((rollout, abort)) = aborted.and_then(|rollout| Some((rollout, rollout.abort.as_ref()?))) else {
        let reverted = draft.history.first().is_some_and(|record| record.reason == reason::REVERTED);
        let reason = if reverted && draft.rollout.is_none() { reason::REVERTED } else { reason::NONE };
        return Said::new("False", reason, "nothing was taken back");
    };
    let version = cx.version(&rollout.revision);
    Said::new("True", &abort.reason, format!("version {version} was taken back: {}", abort.message))
}
