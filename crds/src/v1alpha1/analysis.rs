//! What a candidate is judged by.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Percentage, SHARE};

fn ten_seconds() -> i32 {
    10
}

fn one_hour() -> i32 {
    3600
}

fn default_min_samples() -> i32 {
    100
}

/// How a quantity in a string looks.
const QUANTITY: &str =
    r"^[-+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$";

fn one_percent() -> Percentage {
    Percentage::from_text("1%")
}

/// The judge's settings. Evidence are counts of both arms over the same window, from the moment the
/// weight was confirmed. Only a pass of every gate advances; only a fail takes back; no data, too
/// little data and an unreachable Prometheus hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.mode == 'Custom') == (has(self.gates) && size(self.gates) > 0)").message("spec.analysis.gates: required when mode is Custom, and only allowed then; mode Default judges errors and latency, mode Disabled judges nothing"),
    validation = Rule::new("self.maxHoldSeconds >= self.intervalSeconds").message("spec.analysis.maxHoldSeconds: must not be less than intervalSeconds, or a step could end before its first look")
)]
pub struct AnalysisSpec {
    /// How often the evidence is read, in seconds.
    #[serde(default = "ten_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: i32,

    /// How long a step may hold without a verdict, in seconds; then `onHoldExceeded` applies. A
    /// candidate that answered none of its requests until then is taken back in any case.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub max_hold_seconds: i32,

    /// What happens when a step held for `maxHoldSeconds`. Pause (default): the rollout waits for
    /// a person at its weight. Abort: the candidate is taken back.
    #[serde(default)]
    pub on_hold_exceeded: HoldPolicy,

    /// Chance that a candidate which is as good as stable is taken back over the whole rollout,
    /// all steps and gates together: a percentage from 0.01 to 20. Holds however often the
    /// evidence is looked at.
    #[serde(default = "one_percent")]
    #[schemars(extend("minimum" = 1, "maximum" = 20, "pattern" = SHARE))]
    pub false_rollback_rate: Percentage,

    /// What judges. Default: the gates `errors` (type ErrorRate) and `latency` (type Latency) with
    /// their defaults. Custom: the gates of this list. Disabled: nothing; steps advance when they
    /// are confirmed.
    #[serde(default)]
    pub mode: AnalysisMode,

    /// Gates; all must pass. Only with mode Custom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub gates: Option<Vec<GateSpec>>,
}

impl Default for AnalysisSpec {
    fn default() -> Self {
        Self {
            interval_seconds: 10,
            max_hold_seconds: 3600,
            on_hold_exceeded: HoldPolicy::default(),
            false_rollback_rate: one_percent(),
            mode: AnalysisMode::default(),
            gates: None,
        }
    }
}

/// What judges a candidate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnalysisMode {
    /// Errors and latency.
    #[default]
    Default,
    /// The gates of the spec.
    Custom,
    /// Nothing.
    Disabled,
}

/// What happens when a step held too long.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldPolicy {
    /// The rollout waits for a person at its current weight.
    #[default]
    Pause,
    /// The candidate is taken back.
    Abort,
}

/// One gate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.errorRate) || self.type == 'ErrorRate'").message("spec.analysis.gates.errorRate: only allowed when the gate's type is ErrorRate"),
    validation = Rule::new("!has(self.latency) || self.type == 'Latency'").message("spec.analysis.gates.latency: only allowed when the gate's type is Latency"),
    validation = Rule::new("!has(self.accuracy) || self.type == 'Accuracy'").message("spec.analysis.gates.accuracy: only allowed when the gate's type is Accuracy"),
    validation = Rule::new("(self.type == 'PromQL') == has(self.promQL)").message("spec.analysis.gates.promQL: required when the gate's type is PromQL, and only allowed then")
)]
pub struct GateSpec {
    /// Name of the gate, unique in the list; shown in status and events.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Kind of the gate. ErrorRate: share of failed requests (5xx, timeouts, no connection).
    /// Latency: share of slow requests. Accuracy: share of right predictions by feedback labels.
    /// These compare the candidate with stable at the same time. PromQL: a query that yields one
    /// number, against thresholds.
    #[serde(rename = "type")]
    pub type_: GateType,

    /// Settings of type ErrorRate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<ErrorRateGate>,

    /// Settings of type Latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyGate>,

    /// Settings of type Accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyGate>,

    /// Settings of type PromQL.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "promQL")]
    pub prom_ql: Option<PromQlGate>,
}

impl GateSpec {
    /// A gate that says nothing but its name and its type.
    pub fn of_type(name: impl Into<String>, type_: GateType) -> Self {
        let name = name.into();
        Self { name, type_, error_rate: None, latency: None, accuracy: None, prom_ql: None }
    }
}

/// Kind of a gate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateType {
    /// Share of failed requests (5xx, timeouts, no connection), candidate against concurrent
    /// stable.
    ErrorRate,
    /// Share of slow requests, candidate against concurrent stable.
    Latency,
    /// Share of right predictions by feedback labels, candidate against concurrent stable.
    Accuracy,
    /// Any PromQL that yields one number, against thresholds.
    #[serde(rename = "PromQL")]
    PromQl,
}

/// Error rate against concurrent stable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRateGate {
    /// The smallest increase of the share of failed requests worth catching, in percent of the
    /// requests: the gate passes once a larger increase is excluded. Default: 2%.
    #[serde(default = "ErrorRateGate::default_increase")]
    #[schemars(extend("minimum" = 1, "maximum" = 100, "pattern" = SHARE))]
    pub max_increase: Percentage,

    /// Fewest requests of each arm. Default: 100.
    #[serde(default = "default_min_samples")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: i32,
}

impl ErrorRateGate {
    fn default_increase() -> Percentage {
        Percentage::from_text("2%")
    }
}

impl Default for ErrorRateGate {
    fn default() -> Self {
        Self { max_increase: Self::default_increase(), min_requests: 100 }
    }
}

/// Latency against concurrent stable: the share of the candidate's requests that are slower than
/// stable's quantile times the allowed ratio.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LatencyGate {
    /// Quantile of stable's latency that is compared: a percentage from 50 to 99.9. Default: 95%.
    #[serde(default = "LatencyGate::default_quantile")]
    #[schemars(extend("minimum" = 50, "maximum" = 99, "pattern" = r"^[5-9][0-9]([.][0-9]{1,4})?%$"))]
    pub quantile: Percentage,

    /// How much slower than stable's quantile a request may be before it counts as slow, in
    /// percent of it (`150%`: half as slow again), from 100 to 10000. Rounded up to a histogram
    /// bucket. Default: 150%.
    #[serde(default = "LatencyGate::default_ratio")]
    #[schemars(extend("minimum" = 100, "maximum" = 10_000, "pattern" = r"^[1-9][0-9]{2,4}([.][0-9]{1,4})?%$"))]
    pub max_ratio: Percentage,

    /// A request that is answered faster than this is never slow, whatever stable's quantile, in
    /// milliseconds. A model of 1 ms beside one of 4 ms is a difference that no user notices.
    /// Default: 10.
    #[serde(default = "LatencyGate::default_floor")]
    #[schemars(range(min = 0, max = 3_600_000))]
    pub min_slow_milliseconds: i32,

    /// The smallest increase of the share of slow requests worth catching, in percent of the
    /// requests. Default: 5%.
    #[serde(default = "LatencyGate::default_increase")]
    #[schemars(extend("minimum" = 1, "maximum" = 100, "pattern" = SHARE))]
    pub max_increase: Percentage,

    /// Fewest requests of each arm. Default: 100.
    #[serde(default = "default_min_samples")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: i32,
}

impl LatencyGate {
    fn default_quantile() -> Percentage {
        Percentage::from_text("95%")
    }
    fn default_ratio() -> Percentage {
        Percentage::from_text("150%")
    }
    fn default_floor() -> i32 {
        10
    }
    fn default_increase() -> Percentage {
        Percentage::from_text("5%")
    }
}

impl Default for LatencyGate {
    fn default() -> Self {
        Self {
            quantile: Self::default_quantile(),
            max_ratio: Self::default_ratio(),
            min_slow_milliseconds: 10,
            max_increase: Self::default_increase(),
            min_requests: 100,
        }
    }
}

/// Accuracy from feedback labels against concurrent stable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccuracyGate {
    /// The smallest loss of accuracy worth catching, in percent of the predictions: the gate
    /// passes once a larger loss is excluded. Default: 5%.
    #[serde(default = "AccuracyGate::default_drop")]
    #[schemars(extend("minimum" = 1, "maximum" = 100, "pattern" = SHARE))]
    pub max_drop: Percentage,

    /// Fewest labelled predictions of each arm. Default: 100.
    #[serde(default = "default_min_samples")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_labels: i32,
}

impl AccuracyGate {
    fn default_drop() -> Percentage {
        Percentage::from_text("5%")
    }
}

impl Default for AccuracyGate {
    fn default() -> Self {
        Self { max_drop: Self::default_drop(), min_labels: 100 }
    }
}

/// Any PromQL that yields one number.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.min) || has(self.max)").message("spec.analysis.gates.promQL: give min, max or both, or the gate could not fail"),
    validation = Rule::new("self.query.contains('{{candidate}}') || self.query.contains('{{stable}}')").message("spec.analysis.gates.promQL.query: must name a revision by {{candidate}} or {{stable}}, or it would judge old revisions too"),
    // Integers only: a quantity in a string cannot be parsed within the cost budget. The operator checks the others.
    validation = Rule::new("!has(self.min) || !has(self.max) || type(self.min) != int || type(self.max) != int || int(self.min) <= int(self.max)").message("spec.analysis.gates.promQL: min must not be greater than max, or no value could pass; swap them")
)]
pub struct PromQlGate {
    /// Query that yields exactly one number. Variables: `{{candidate}}` and `{{stable}}`
    /// (revisions), `{{modeldeployment}}`, `{{namespace}}`, and `{{window}}`: the time since
    /// the weight was confirmed, as a PromQL duration. No series, several series, NaN and
    /// infinities hold; they never pass and never fail.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,

    /// The smallest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY))]
    pub min: Option<Quantity>,

    /// The largest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY))]
    pub max: Option<Quantity>,

    /// How long the weight must have been confirmed before the first look, in seconds. Default:
    /// 10.
    #[serde(default = "ten_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub initial_delay_seconds: i32,

    /// How many looks in a row must be within the thresholds to pass, and out of them to fail.
    /// Default: 3.
    #[serde(default = "PromQlGate::default_count")]
    #[schemars(range(min = 1, max = 100))]
    pub consecutive_count: i32,
}

impl PromQlGate {
    fn default_count() -> i32 {
        3
    }
}
