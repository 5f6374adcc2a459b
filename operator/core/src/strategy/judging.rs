//! When the judge evaluates the candidate, and how much of its judgement is stored.

use slipway_crds::v1alpha1::{GateStatus, GateVerdict, RolloutStage};
use slipway_judge::Judgement;
use slipway_judge::evidence::EvidenceRequest;

use crate::context::PlanContext;
use crate::draft::PlanDraft;
use crate::traffic;

/// The numbers of every n-th reading are stored even if no verdict changed: often enough to watch,
/// rarely enough for the API server.
const WRITE_EVERY_READINGS: u64 = 6;

/// The judgement of the candidate at its confirmed weight. `None` if there is nothing to judge: no
/// weight, no confirmation, no gates, or a full promotion by a user.
pub(super) fn current_judgement<'a>(
    cx: &PlanContext<'_>,
    draft: &'a PlanDraft,
) -> Option<&'a Judgement> {
    evidence_window(cx, draft)?;
    let (generation, judgement) = draft.judgement.as_ref()?;
    (*generation == draft.traffic.generation).then_some(judgement)
}

/// Judges the candidate, once for each plan and generation, and stores what changed.
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

/// If the candidate has all traffic, no other revision runs to compare rates with. Its earlier
/// verdict is more useful than none.
fn keep_rate_verdicts(cx: &PlanContext<'_>, old: &[GateStatus], new: &mut [GateStatus]) {
    for gate in new.iter_mut().filter(|gate| gate.verdict == GateVerdict::NoData) {
        let compares =
            cx.spec.gates.iter().any(|it| it.name == gate.name && slipway_judge::compares_arms(it));
        if let Some(earlier) = old.iter().find(|it| compares && it.name == gate.name) {
            gate.clone_from(earlier);
        }
    }
}

/// The queries for the poller while the candidate has weight.
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

/// The window in which evidence counts. It is open in every stage, including pauses and the scaling
/// for the next step, so that a candidate that becomes faulty is rolled back at any time.
fn evidence_window(cx: &PlanContext<'_>, draft: &PlanDraft) -> Option<EvidenceWindow> {
    let rollout = draft.active_rollout().filter(|rollout| !rollout.promote_full)?;
    let candidate = rollout.revision.clone();
    let since = traffic::confirmed_time(&draft.traffic)?;
    let open = draft.weight() > 0 && !cx.spec.gates.is_empty() && cx.spec.problem.is_none();
    // If the candidate has all traffic, only the probation and pauses are judged.
    let watched = draft.weight() < traffic::FULL_WEIGHT
        || matches!(rollout.stage, RolloutStage::Probation | RolloutStage::Paused);
    let stable = draft.stable.clone()?;
    (open && watched).then_some(EvidenceWindow { stable, candidate, since })
}

/// Whether something changed that must not be lost: a gate, a verdict, an incomplete series of
/// consecutive evaluations, or the first reading.
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

/// Caps a complete series of evaluations, because further growth carries no information.
fn capped_streak(cx: &PlanContext<'_>, gate: &GateStatus) -> i32 {
    let spec = cx.spec.gates.iter().find(|it| it.name == gate.name);
    let complete = spec.map_or(1, slipway_judge::looks_to_decide);
    gate.consecutive.clamp(complete.saturating_neg(), complete)
}
