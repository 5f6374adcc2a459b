//! The judge: from evidence to a verdict. Pure: it knows no plan, no objects, no client and no clock.
//!
//! A verdict is one of five. **Pass**: a regression worth catching is excluded. **Fail**: the
//! candidate is worse. **NeedMoreData**, **NoData** and **ProviderDown** hold, each saying why.
//! Only Pass advances, only Fail takes back; the absence of evidence does neither.
//!
//! Three gate types compare a rate of the candidate with that of stable in the same window (failed
//! requests, slow requests, wrong predictions) by a [sequential test](self#the-test). A PromQL gate
//! compares one number with thresholds. `docs/judge.md` has the operating characteristics as
//! measured.
//!
//! # The test
//!
//! With `[low, high]` the confidence sequence for (candidate's rate - stable's rate), valid at all
//! times together and so however often it is looked at:
//!
//! - `Pass` when `high` at level [`MISSED_REGRESSION`] is below the smallest increase worth
//!   catching and both arms have the fewest events that the gate asks for;
//! - else `Fail` when `low` at the gate's share of [`JudgeInput::alpha`] is above 0 and the
//!   candidate has [`MIN_EVENTS_TO_FAIL`] events, [`MIN_BAD_TO_FAIL`] of them bad;
//! - else `NeedMoreData`.
//!
//! A candidate that is worse beyond doubt, and beyond doubt by less than is worth catching, passes:
//! that is what "worth catching" means.

pub mod evidence;
mod latency;
mod query;
mod rates;
mod reading;
pub mod scope;
mod sequential;
mod text;
mod value;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use query::gate_queries;
pub use rates::{MIN_BAD_TO_FAIL, MIN_EVENTS_TO_FAIL, MISSED_REGRESSION};
use slipway_crds::v1alpha1::{
    AnalysisMode, AnalysisSpec, GateSpec, GateStatus, GateType, GateVerdict,
};

use crate::evidence::{GateEvidence, GateReading};

/// Longest message of a gate that the API takes, in characters.
const MAX_MESSAGE: usize = 1024;

/// Everything that a judgement depends on.
#[derive(Clone, Copy, Debug)]
pub struct JudgeInput<'a> {
    /// The gates, as [`resolved_gates`] yields them.
    pub gates: &'a [GateSpec],
    /// Chance that a candidate as good as stable fails in this step, all gates together.
    pub alpha: f64,
    /// Revision of the candidate.
    pub candidate: &'a str,
    /// Revision of stable.
    pub stable: &'a str,
    /// The newest evidence.
    pub evidence: Option<&'a GateEvidence>,
    /// Generation of the weights that are judged.
    pub generation: i64,
    /// When that generation was confirmed: start of the window.
    pub confirmed_time: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// The gates as the status has them: memory of PromQL gates.
    pub previous: &'a [GateStatus],
}

/// What the judge says.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Over all gates: Fail when one fails, Pass when all pass, else the first of ProviderDown,
    /// NoData, NeedMoreData that a gate has.
    pub verdict: GateVerdict,
    /// Every gate, in the order of the input.
    pub gates: Vec<GateStatus>,
    /// For people: the gates that make the verdict, with their numbers.
    pub message: String,
}

/// Whether a reading has anything good to tell of a revision: an answer, or a right prediction.
pub fn has_good_events(evidence: &GateEvidence, revision: &str) -> bool {
    let of = |reading: &GateReading| match reading {
        GateReading::Counts(counts) => {
            counts.get(revision).is_some_and(|counts| counts.good >= 1.0)
        }
        _ => false,
    };
    evidence.gates.values().any(of)
}

/// The gates of an analysis: with mode Default `errors` and `latency` with their defaults, with
/// mode Custom those it names, with mode Disabled none: no judge.
pub fn resolved_gates(analysis: &AnalysisSpec) -> Vec<GateSpec> {
    let default = |name: &str, type_| GateSpec {
        name: name.to_owned(),
        type_,
        error_rate: None,
        latency: None,
        accuracy: None,
        prom_ql: None,
    };
    match analysis.mode {
        AnalysisMode::Default => {
            vec![default("errors", GateType::ErrorRate), default("latency", GateType::Latency)]
        }
        AnalysisMode::Custom => analysis.gates.clone().unwrap_or_default(),
        AnalysisMode::Disabled => Vec::new(),
    }
}

/// Judges a candidate by the newest evidence. With no gates at all the verdict is Pass: nobody
/// asked for a judge.
pub fn judge_gates(input: &JudgeInput<'_>) -> Judgement {
    let reading = usable_evidence(input);
    let statistical = input.gates.iter().filter(|g| g.type_ != GateType::PromQl).count();
    // Bonferroni over the gates that run a test; a PromQL gate has the error rate that its author
    // gave it. An unusable budget (a bug of the caller's) only ever makes failing harder.
    let share = input.alpha / statistical.max(1) as f64;
    let share = if share.is_finite() { share.clamp(1e-9, 0.5) } else { 1e-9 };
    let gates: Vec<GateStatus> =
        input.gates.iter().map(|gate| gate_status(input, gate, reading, share)).collect();
    let verdict = overall_verdict(&gates);
    Judgement { verdict, message: text::summarize_gates(verdict, &gates), gates }
}

/// How the message of a gate begins that nothing was read for.
pub const NO_READING: &str = "no reading yet";

/// The evidence, if it speaks of the current weights at all; else what is missing. Whatever was
/// counted before every gateway had confirmed belongs to another split.
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
    let finding = match evidence {
        Err(missing) => value::with_stored_streak(input, gate, GateFinding::no_data(missing)),
        Ok(evidence) => match evidence.gates.get(&gate.name) {
            None => value::with_stored_streak(
                input,
                gate,
                GateFinding::no_data("the reading does not cover this gate"),
            ),
            Some(GateReading::NoData(why)) => GateFinding::no_data(why),
            Some(GateReading::ProviderDown(why)) => value::with_stored_streak(
                input,
                gate,
                GateFinding::new(GateVerdict::ProviderDown, why.clone()),
            ),
            Some(reading) if gate.type_ == GateType::PromQl => {
                value::judge_value(input, gate, reading, evidence.taken_at)
            }
            Some(reading) => rates::judge_rates(input, gate, reading, alpha, evidence.taken_at),
        },
    };
    GateStatus {
        name: gate.name.clone(),
        verdict: finding.verdict,
        message: text::truncate_text(&finding.message, MAX_MESSAGE),
        candidate: text::truncate_text(&finding.candidate, 64),
        stable: text::truncate_text(&finding.stable, 64),
        consecutive: finding.consecutive,
        last_look_time: finding.last_look_time.map(Time),
    }
}

fn overall_verdict(gates: &[GateStatus]) -> GateVerdict {
    use GateVerdict::{Fail, NeedMoreData, NoData, Pass, ProviderDown};
    // What decides comes first; then what a person can do least about by waiting.
    [Fail, ProviderDown, NoData, NeedMoreData]
        .into_iter()
        .find(|verdict| gates.iter().any(|g| g.verdict == *verdict))
        .unwrap_or(Pass)
}

/// What one gate found.
#[derive(Clone, Debug, PartialEq)]
struct GateFinding {
    verdict: GateVerdict,
    message: String,
    candidate: String,
    stable: String,
    consecutive: i32,
    last_look_time: Option<Timestamp>,
}

impl GateFinding {
    fn new(verdict: GateVerdict, message: impl Into<String>) -> Self {
        Self {
            verdict,
            message: message.into(),
            candidate: String::new(),
            stable: String::new(),
            consecutive: 0,
            last_look_time: None,
        }
    }

    fn no_data(why: impl Into<String>) -> Self {
        Self::new(GateVerdict::NoData, why)
    }
}

#[cfg(test)]
mod tests;
