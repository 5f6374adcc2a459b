//! PromQL gates: compare one number with thresholds, over a number of consecutive evaluations.
//!
//! An evaluation is a reading with a finite number after the initial delay. A reading without a
//! usable number resets the series of evaluations; a reading that could not be taken leaves it
//! unchanged.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use slipway_crds::quantity::parse_quantity;
use slipway_crds::v1alpha1::{GateSpec, GateType, GateVerdict, PromQlGate};

use super::{GateKind, field_path};
use crate::evidence::{EvidenceQuery, GateReading};
use crate::finding::GateFinding;
use crate::input::JudgeInput;
use crate::query::SeriesSelector;
use crate::rates::OTHER_READING;
use crate::{scope, text};

/// Gates of type PromQL. Their error rate is that of the user's query and thresholds.
pub(super) struct PromQlKind;

impl GateKind for PromQlKind {
    fn query(&self, gate: &GateSpec, selector: &SeriesSelector<'_>) -> EvidenceQuery {
        let query = gate.prom_ql.as_ref().map(|p| p.query.as_str()).unwrap_or_default();
        EvidenceQuery::Value(substitute_variables(query, selector))
    }

    fn judge(
        &self,
        input: &JudgeInput<'_>,
        gate: &GateSpec,
        reading: &GateReading,
        _alpha: f64,
        taken_at: Timestamp,
    ) -> GateFinding {
        judge_value(input, gate, reading, taken_at)
    }

    fn without_reading(
        &self,
        input: &JudgeInput<'_>,
        gate: &GateSpec,
        finding: GateFinding,
    ) -> GateFinding {
        with_stored_streak(input, gate, finding)
    }

    fn compares_arms(&self) -> bool {
        false
    }

    fn runs_user_query(&self) -> bool {
        true
    }

    fn looks_to_decide(&self, gate: &GateSpec) -> i32 {
        gate.prom_ql.as_ref().map_or(1, |settings| settings.consecutive_count.max(1))
    }

    fn find_settings_problem(&self, gate: &GateSpec) -> Option<String> {
        let field = field_path(gate, "promQL");
        if (gate.type_ == GateType::PromQl) != gate.prom_ql.is_some() {
            return Some(format!(
                "{field}: required when the type is PromQL, and only allowed then"
            ));
        }
        let bounds = gate.prom_ql.as_ref()?;
        if let Err(why) = scope::check_query(&bounds.query) {
            return Some(format!("{field}.query: {why}"));
        }
        (bounds.min.is_none() && bounds.max.is_none())
            .then(|| format!("{field}: give min, max or both, or the gate could not fail"))
    }
}

/// Substitutes the variables of a user's query, except `{{window}}`, which only the poller can
/// compute. Names and revisions are DNS labels and need no quoting.
fn substitute_variables(query: &str, selector: &SeriesSelector<'_>) -> String {
    query
        .replace("{{candidate}}", selector.candidate)
        .replace("{{stable}}", selector.stable)
        .replace("{{modeldeployment}}", selector.name)
        .replace("{{namespace}}", selector.namespace)
}

/// Judges one PromQL gate by its reading.
fn judge_value(
    input: &JudgeInput<'_>,
    gate: &GateSpec,
    reading: &GateReading,
    taken_at: Timestamp,
) -> GateFinding {
    let Some(settings) = gate.prom_ql.as_ref() else {
        return GateFinding::no_data("the gate has no query");
    };
    let GateReading::Value(value) = *reading else {
        return GateFinding::no_data(OTHER_READING);
    };
    if !value.is_finite() {
        return GateFinding::no_data(format!(
            "the query yields {value}, which is no number to judge by"
        ));
    }
    let bounds = match ValueBounds::from_gate(settings) {
        Ok(bounds) => bounds,
        Err(why) => return GateFinding::no_data(why),
    };
    let delay = SignedDuration::from_secs(i64::from(settings.initial_delay_seconds.max(0)));
    if taken_at.duration_since(input.confirmed_time) < delay {
        let left = (delay - input.now.duration_since(input.confirmed_time)).as_secs_f64().max(0.0);
        let message = format!("the first look is {} from now", text::format_duration(left));
        let early = GateFinding {
            candidate: text::format_number(value),
            ..GateFinding::new(GateVerdict::NeedMoreData, message)
        };
        return with_stored_streak(input, gate, early);
    }
    let needed = settings.consecutive_count.max(1);
    let (row, last_look_time) = next_streak(input, gate, taken_at, bounds.contains(value));
    // A complete series does not grow, so that further evaluations do not change the status.
    let row = row.clamp(-needed, needed);
    let verdict = match row {
        row if row >= needed => GateVerdict::Pass,
        row if row <= -needed => GateVerdict::Fail,
        _ => GateVerdict::NeedMoreData,
    };
    let side = if row > 0 { "within" } else { "outside" };
    let message = format!(
        "value {}, asked for {}: {} of {needed} looks in a row {side}",
        text::format_number(value),
        bounds.describe(),
        row.unsigned_abs()
    );
    GateFinding {
        candidate: text::format_number(value),
        consecutive: row,
        last_look_time: Some(last_look_time),
        ..GateFinding::new(verdict, message)
    }
}

/// The new length of the series and the time of the evaluation that it counts last. If a plan runs
/// for another reason, the same reading is counted only once.
fn next_streak(
    input: &JudgeInput<'_>,
    gate: &GateSpec,
    taken_at: Timestamp,
    within: bool,
) -> (i32, Timestamp) {
    let (row, last) = stored_streak(input, gate);
    // Times in the API have whole seconds.
    let taken_at = Timestamp::from_second(taken_at.as_second()).unwrap_or(taken_at);
    if let Some(last) = last
        && taken_at <= last
    {
        return (row, last);
    }
    let row = match (within, row) {
        (true, row) => row.max(0).saturating_add(1),
        (false, row) => row.min(0).saturating_sub(1),
    };
    (row, taken_at)
}

/// The series stored in the status; empty if it was at another weight.
fn stored_streak(input: &JudgeInput<'_>, gate: &GateSpec) -> (i32, Option<Timestamp>) {
    let since = input.confirmed_time.as_second();
    input
        .previous
        .iter()
        .find(|status| status.name == gate.name)
        .and_then(|status| status.last_look_time.as_ref().map(|at| (status.consecutive, at.0)))
        .filter(|(_, at)| at.as_second() >= since)
        .map_or((0, None), |(row, at)| (row, Some(at)))
}

/// `finding`, about a reading that could not be taken, with the stored series unchanged.
fn with_stored_streak(
    input: &JudgeInput<'_>,
    gate: &GateSpec,
    finding: GateFinding,
) -> GateFinding {
    let (consecutive, last_look_time) = stored_streak(input, gate);
    GateFinding { consecutive, last_look_time, ..finding }
}

struct ValueBounds {
    min: Option<f64>,
    max: Option<f64>,
}

impl ValueBounds {
    fn from_gate(settings: &PromQlGate) -> Result<Self, String> {
        let parsed = |side: &str, quantity: &Option<Quantity>| match quantity {
            None => Ok(None),
            Some(text) => parse_quantity(&text.0)
                .map(Some)
                .ok_or_else(|| format!("promQL.{side}: {:?} is no number", text.0)),
        };
        let bounds =
            Self { min: parsed("min", &settings.min)?, max: parsed("max", &settings.max)? };
        if bounds.min.is_none() && bounds.max.is_none() {
            return Err("promQL: neither min nor max is given".to_owned());
        }
        Ok(bounds)
    }

    fn contains(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }

    fn describe(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => {
                format!("{} to {}", text::format_number(min), text::format_number(max))
            }
            (Some(min), None) => format!("at least {}", text::format_number(min)),
            (None, Some(max)) => format!("at most {}", text::format_number(max)),
            (None, None) => "nothing".to_owned(),
        }
    }
}
