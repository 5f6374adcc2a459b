//! The common part of the gates that compare the rate of bad events of both arms.

use jiff::Timestamp;
use slipway_crds::v1alpha1::{GateVerdict, Percentage};

use crate::evidence::GateReading;
use crate::finding::GateFinding;
use crate::input::JudgeInput;
use crate::sequential::{ArmComparison, ArmEvents};
use crate::{reading, text};

/// Message for a reading of another kind than the gate's query.
pub(crate) const OTHER_READING: &str = "the reading is not of the kind that the gate asked for";

/// Probability that one gate passes, in one step, a regression of exactly the smallest size worth
/// detecting, however often it is evaluated. Every step of a rollout judges independently, so a
/// whole rollout misses it with the product of these probabilities. It is larger than the
/// probability of a false rollback, so that a step passes after hundreds of requests instead of
/// thousands. The measured value is about a fifth of it.
pub const MISSED_REGRESSION: f64 = 0.05;

/// Minimum number of events of the candidate before it may fail. The test is valid from the first
/// event; this minimum prevents that a short network failure decides.
pub const MIN_EVENTS_TO_FAIL: f64 = 10.0;

/// Minimum number of bad events of the candidate before it may fail, for the same reason.
pub const MIN_BAD_TO_FAIL: f64 = 5.0;

/// Maximum factor by which a projection extends the current evidence.
const FURTHEST_PROJECTION: f64 = 1e5;

/// The parameters of a gate that compares rates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateCriteria {
    /// The smallest increase of the bad rate worth detecting.
    pub(crate) worth_catching: f64,
    /// Minimum number of events of each arm to pass.
    pub(crate) min_events: f64,
    /// Probability of a false rollback by this gate in this step.
    pub(crate) alpha: f64,
    /// The name of an event: `request`, `labelled prediction`.
    pub(crate) noun: &'static str,
    /// The attribute of a bad event: `failed`, `slow`, `wrong`.
    pub(crate) bad: &'static str,
}

impl RateCriteria {
    pub(crate) fn new(
        worth_catching: &Percentage,
        min_events: i32,
        alpha: f64,
        noun: &'static str,
        bad: &'static str,
    ) -> Self {
        // Validation rejects invalid percentages earlier; the strictest value prevents a pass if
        // the schema accepted one.
        let worth_catching = worth_catching.fraction().unwrap_or_default().clamp(0.0001, 1.0);
        Self { worth_catching, min_events: f64::from(min_events.max(1)), alpha, noun, bad }
    }
}

/// Both arms of a comparison, with the wording of its message.
pub(crate) struct ComparedArms {
    pub(crate) candidate: ArmEvents,
    pub(crate) stable: ArmEvents,
    /// Detail for the message, such as the bound of slow requests.
    pub(crate) detail: String,
}

/// Judges one gate by the events of both arms, or holds with what is missing.
pub(crate) fn judge_arms(
    input: &JudgeInput<'_>,
    arms: Result<ComparedArms, String>,
    question: &RateCriteria,
    taken_at: Timestamp,
) -> GateFinding {
    let arms = match arms {
        Ok(arms) => arms,
        Err(why) => return GateFinding::no_data(why),
    };
    let seconds = taken_at.duration_since(input.confirmed_time).as_secs_f64();
    let verdict = decide_verdict(arms.candidate, arms.stable, question);
    let message = describe_verdict(verdict, &arms, question, seconds);
    let shown = |e: ArmEvents| {
        format!("{} of {} {}", text::format_count(e.bad), text::format_count(e.all), question.bad)
    };
    GateFinding {
        candidate: shown(arms.candidate),
        stable: shown(arms.stable),
        ..GateFinding::new(verdict, message)
    }
}

/// Both arms of a reading that counts bad and good events.
pub(crate) fn count_arms(
    input: &JudgeInput<'_>,
    reading: &GateReading,
    question: &RateCriteria,
) -> Result<ComparedArms, String> {
    let GateReading::Counts(counts) = reading else { return Err(OTHER_READING.to_owned()) };
    let candidate = reading::revision_events(counts, input.candidate);
    let stable = reading::revision_events(counts, input.stable);
    let (candidate, stable) = both_arms(candidate, stable, question.noun)?;
    Ok(ComparedArms { candidate, stable, detail: String::new() })
}

/// Both arms, or the missing one. A missing candidate is reported first, because the user can do
/// something about it.
pub(crate) fn both_arms<T>(
    candidate: Result<Option<T>, String>,
    stable: Result<Option<T>, String>,
    noun: &str,
) -> Result<(T, T), String> {
    let reached = |arm: &str| match noun {
        "request" => format!("no request reached {arm}"),
        _ => format!("no {noun} of {arm}"),
    };
    let candidate = candidate.map_err(|why| format!("candidate: {why}"))?;
    let stable = stable.map_err(|why| format!("stable: {why}"))?;
    let candidate = candidate.ok_or_else(|| reached("the candidate"))?;
    let stable = stable.ok_or_else(|| reached("stable"))?;
    Ok((candidate, stable))
}

/// The verdict on counts. See the documentation of the crate.
pub(crate) fn decide_verdict(
    candidate: ArmEvents,
    stable: ArmEvents,
    question: &RateCriteria,
) -> GateVerdict {
    let comparison = ArmComparison::new(candidate, stable);
    let difference = comparison.difference();
    let enough = candidate.all >= question.min_events && stable.all >= question.min_events;
    let excludes = |d: f64, alpha: f64| comparison.evidence_against(d) >= -alpha.ln();
    if enough
        && difference < question.worth_catching
        && excludes(question.worth_catching, MISSED_REGRESSION)
    {
        return GateVerdict::Pass;
    }
    let may_fail = candidate.all >= MIN_EVENTS_TO_FAIL && candidate.bad >= MIN_BAD_TO_FAIL;
    if may_fail && difference > 0.0 && excludes(0.0, question.alpha) {
        return GateVerdict::Fail;
    }
    GateVerdict::NeedMoreData
}

fn describe_verdict(
    verdict: GateVerdict,
    arms: &ComparedArms,
    question: &RateCriteria,
    seconds: f64,
) -> String {
    let ComparedArms { candidate, stable, detail } = arms;
    let observed = format!(
        "{} of {} {}{detail} {}, {} at stable",
        text::format_percent(candidate.rate()),
        text::format_plural(candidate.all, question.noun),
        "at the candidate",
        question.bad,
        text::format_percent(stable.rate()),
    );
    let comparison = ArmComparison::new(*candidate, *stable);
    match verdict {
        GateVerdict::Pass => {
            format!(
                "{observed}: an increase of {} is excluded",
                text::format_percent(question.worth_catching)
            )
        }
        GateVerdict::Fail => {
            let (low, _) = comparison.interval(question.alpha);
            format!("{observed}: worse by at least {}", text::format_percent(low))
        }
        _ => {
            let (low, high) = comparison.interval(MISSED_REGRESSION);
            format!(
                "{observed}: between {} and {}, to pass below {}; {}",
                text::format_signed_percent(low),
                text::format_signed_percent(high),
                text::format_signed_percent(question.worth_catching),
                describe_missing(arms, question, seconds)
            )
        }
    }
}

/// The additional evidence that is needed if both arms continue at their rates.
fn describe_missing(arms: &ComparedArms, question: &RateCriteria, seconds: f64) -> String {
    let Some(factor) = projected_growth(arms.candidate, arms.stable, question) else {
        return "cannot say yet how much more is needed".to_owned();
    };
    // The arm with less traffic determines the wait.
    let (arm, has) = if arms.stable.all < arms.candidate.all {
        ("stable", arms.stable.all)
    } else {
        ("the candidate", arms.candidate.all)
    };
    let more = text::round_up_two_digits(has * (factor - 1.0));
    let when = text::format_duration(seconds * (factor - 1.0));
    let eta = if seconds >= 1.0 { format!(", about {when} at this rate") } else { String::new() };
    format!(
        "needs about {} more {} at {arm} (has {}){eta}",
        text::format_count(more),
        text::plural_noun(more, question.noun),
        text::format_count(has)
    )
}

/// The factor by which both arms must grow, at the rates observed so far, until there is a verdict.
fn projected_growth(
    candidate: ArmEvents,
    stable: ArmEvents,
    question: &RateCriteria,
) -> Option<f64> {
    let scaled =
        |events: ArmEvents, by: f64| ArmEvents { bad: events.bad * by, all: events.all * by };
    let decided = |by: f64| {
        decide_verdict(scaled(candidate, by), scaled(stable, by), question)
            != GateVerdict::NeedMoreData
    };
    let mut known = 1.0;
    let mut reached = 2.0;
    while !decided(reached) {
        known = reached;
        reached *= 2.0;
        if reached > FURTHEST_PROJECTION {
            return None;
        }
    }
    for _ in 0..8 {
        let middle = 0.5 * (known + reached);
        if decided(middle) {
            reached = middle;
        } else {
            known = middle;
        }
    }
    Some(reached)
}
