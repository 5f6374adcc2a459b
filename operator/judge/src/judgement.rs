//! The verdict over all gates.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::v1alpha1::{GateSpec, GateStatus, GateVerdict};

use crate::evidence::{GateEvidence, GateReading};
use crate::finding::GateFinding;
use crate::input::JudgeInput;
use crate::{gates, text};

/// The result of judging a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict over all gates: Fail if one fails, Pass if all pass, otherwise the first of
    /// ProviderDown, NoData, NeedMoreData that a gate has.
    pub verdict: GateVerdict,
    /// Status of every gate, in the order of the input.
    pub gates: Vec<GateStatus>,
    /// The gates that determine the verdict, with their numbers, for display.
    pub message: String,
}

/// Whether a reading contains a good event of a revision: an answer, or a correct prediction.
pub fn has_good_events(evidence: &GateEvidence, revision: &str) -> bool {
    let of = |reading: &GateReading| match reading {
        GateReading::Counts(counts) => {
            counts.get(revision).is_some_and(|counts| counts.good >= 1.0)
        }
        _ => false,
    };
    evidence.gates.values().any(of)
}

/// Judges a candidate by the newest evidence. Without any gates the verdict is Pass, because the
/// spec requests no judgement.
pub fn judge_gates(input: &JudgeInput<'_>) -> Judgement {
    let reading = usable_evidence(input);
    let statistical = input.gates.iter().filter(|gate| gates::compares_arms(gate)).count();
    // Bonferroni correction over the gates that run a test; a PromQL gate has the error rate of the
    // user's query and thresholds. An unusable value of alpha (a bug of the caller) only makes
    // failing harder.
    let share = input.alpha / statistical.max(1) as f64;
    let share = if share.is_finite() { share.clamp(1e-9, 0.5) } else { 1e-9 };
    let statuses: Vec<GateStatus> =
        input.gates.iter().map(|gate| gate_status(input, gate, reading, share)).collect();
    let verdict = worst_verdict(&statuses).unwrap_or(GateVerdict::Pass);
    Judgement { verdict, message: text::summarize_gates(verdict, &statuses), gates: statuses }
}

/// Start of the message of a gate without a reading.
const NO_READING: &str = "no reading yet";

/// Whether the status of a gate is based on a reading.
pub fn is_read(gate: &GateStatus) -> bool {
    !gate.message.starts_with(NO_READING)
}

/// The evidence, if it belongs to the current weights; otherwise what is missing. Events counted
/// before every gateway had confirmed belong to another split.
fn usable_evidence<'a>(input: &JudgeInput<'a>) -> Result<&'a GateEvidence, &'static str> {
    let evidence = input.evidence.ok_or(NO_READING)?;
    if evidence.generation != input.generation || evidence.taken_at < input.confirmed_time {
        return Err("no reading yet at this weight");
    }
    Ok(evidence)
}

fn gate_status(
    input: &JudgeInput<'_>,
    gate: &GateSpec,
    evidence: Result<&GateEvidence, &'static str>,
    alpha: f64,
) -> GateStatus {
    let kind = gates::kind_of(gate.type_);
    let unread = |finding| kind.without_reading(input, gate, finding);
    let finding = match evidence {
        Err(missing) => unread(GateFinding::no_data(missing)),
        Ok(evidence) => match evidence.gates.get(&gate.name) {
            None => unread(GateFinding::no_data("the reading does not cover this gate")),
            Some(GateReading::NoData(why)) => GateFinding::no_data(why),
            Some(GateReading::ProviderDown(why)) => {
                unread(GateFinding::new(GateVerdict::ProviderDown, why.clone()))
            }
            Some(reading) => kind.judge(input, gate, reading, alpha, evidence.taken_at),
        },
    };
    GateStatus {
        name: gate.name.clone(),
        verdict: finding.verdict,
        message: text::truncate_text(&finding.message, text::MAX_MESSAGE),
        candidate: text::truncate_text(&finding.candidate, 64),
        stable: text::truncate_text(&finding.stable, 64),
        consecutive: finding.consecutive,
        last_look_time: finding.last_look_time.map(Time),
    }
}

/// The verdict over gates; `None` without gates. Deciding verdicts come first, then those that
/// waiting is least likely to resolve.
pub fn worst_verdict(gates: &[GateStatus]) -> Option<GateVerdict> {
    use GateVerdict::{Fail, NeedMoreData, NoData, Pass, ProviderDown};
    let order = [Fail, ProviderDown, NoData, NeedMoreData, Pass];
    order.into_iter().find(|verdict| gates.iter().any(|gate| gate.verdict == *verdict))
}
