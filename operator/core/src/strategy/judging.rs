//! The judge's part in a rollout: when it is asked, and how much of its answer is kept.

use slipway_crds::v1alpha1::{GateStatus, GateVerdict, RolloutStage};
use slipway_judge::Judgement;
use slipway_judge::evidence::EvidenceRequest;

use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::traffic;

/// One reading in so many has its numbers written down although no verdict changed: often enough to
/// watch, seldom enough for the API server.
const WRITE_EVERY_READINGS: u64 = 6;

/// What the judge said about the candidate at its confirmed weight. Nothing while there is nothing
/// to judge: no weight, no confirmation, no gates, or a person who wants none.
pub(super) fn current_judgement<'a>(
    cx: &PlanContext<'_>,
    draft: &'a PlanDraft,
) -> Option<&'a Judgement> {
    evidence_window(cx, draft)?;
    let (generation, judgement) = draft.judgement.as_ref()?;
    (*generation == draft.traffic.generation).then_some(judgement)
}

/// Asks the judge about the candidate, once a plan and generation, and writes down what is news.
pub(super) fn judge_candidate(cx: &PlanContext<'_>, draft: &mut PlanDraft) {
    let Some(window) = evidence_window(cx, draft) else { return };
    if current_judgement(cx, draft).is_some() {
        return;
    }
    let evidence = cx.observed.evidence.as_ref();
    let evidence = evidence
        .filter(|it| it.generation == draft.traffic.generation && it.taken_at >= window.since);
    let mut judgement = slipway_judge::judge_gates(&slipway_judge::JudgeInput {
        gates: &cx.spec.gates,
        alpha: cx.spec.alpha(),
        candidate: &window.candidate,
        stable: &window.stable,
        evidence,
        generation: draft.traffic.generation,
        confirmed_time: window.since,
        now: cx.now,
        previous: &draft.gates,
    });
    if draft.weight() == traffic::FULL_WEIGHT {
        keep_rate_verdicts(cx, &draft.gates, &mut judgement.gates);
    }
    let due = evidence.is_some_and(|evidence| evidence.serial % WRITE_EVERY_READINGS == 0);
    if due || has_news(cx, &draft.gates, &judgement.gates) {
        draft.gates = judgement.gates.clone();
    }
    draft.judgement = Some((draft.traffic.generation, judgement));
}

/// With all traffic at the candidate nothing runs beside it to compare rates with. The verdict that
/// it got while there was says more than the absence of one.
fn keep_rate_verdicts(cx: &PlanContext<'_>, old: &[GateStatus], new: &mut [GateStatus]) {
    for gate in new.iter_mut().filter(|gate| gate.verdict == GateVerdict::NoData) {
        let compares =
            cx.spec.gates.iter().any(|it| it.name == gate.name && slipway_judge::compares_arms(it));
        if let Some(earlier) = old.iter().find(|it| compares && it.name == gate.name) {
            gate.clone_from(earlier);
        }
    }
}

/// What the poller shall read, as long as the candidate has weight.
pub(crate) fn evidence_request(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<EvidenceRequest> {
    let window = evidence_window(cx, draft)?;
    let namespace = cx.observed.object.metadata.namespace.as_deref().unwrap_or_default();
    let matchers = &cx.observed.settings.prometheus_matchers;
    let gates = slipway_judge::gate_queries(
        namespace,
        &cx.spec.name,
        &cx.spec.gates,
        &window.candidate,
        &window.stable,
        matchers,
    );
    Some(EvidenceRequest {
        generation: draft.traffic.generation,
        since: window.since,
        interval_seconds: cx.spec.interval,
        gates,
    })
}

struct EvidenceWindow {
    stable: String,
    candidate: String,
    since: jiff::Timestamp,
}

/// The window in which evidence counts. It is open in every stage, also in pauses and while the
/// next step scales up: a candidate that turns bad is taken back at any time.
fn evidence_window(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<EvidenceWindow> {
    let rollout = draft.active_rollout().filter(|rollout| !rollout.promote_full)?;
    let candidate = rollout.revision.clone();
    let since = traffic::confirmed_time(&draft.traffic)?;
    let open = draft.weight() > 0 && !cx.spec.gates.is_empty() && cx.spec.problem.is_none();
    // With all traffic at the candidate there is only the probation to watch over.
    let watched = draft.weight() < traffic::FULL_WEIGHT
        || matches!(rollout.stage, RolloutStage::Probation | RolloutStage::Paused);
    let stable = draft.stable.clone()?;
    (open && watched).then_some(EvidenceWindow { stable, candidate, since })
}

/// Whether something changed that must not be lost: a gate, a verdict, a row of looks that is not
/// complete yet, or what the first reading says.
fn has_news(cx: &PlanContext<'_>, old: &[GateStatus], new: &[GateStatus]) -> bool {
    let facts = |gates: &[GateStatus]| -> Vec<_> {
        gates
            .iter()
            .map(|gate| {
                (
                    gate.name.clone(),
                    gate.verdict,
                    capped_streak(cx, gate),
                    slipway_judge::is_read(gate),
                )
            })
            .collect()
    };
    facts(old) != facts(new)
}

/// A row that is complete says no more when it grows.
fn capped_streak(cx: &PlanContext<'_>, gate: &GateStatus) -> i32 {
    let spec = cx.spec.gates.iter().find(|it| it.name == gate.name);
    let complete = spec.map_or(1, slipway_judge::looks_to_decide);
    gate.consecutive.clamp(complete.saturating_neg(), complete)
}
