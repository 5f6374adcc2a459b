//! What a candidate is judged by.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

fn ten() -> i32 {
    10
}

fn hour() -> i32 {
    3600
}

fn hundred() -> i32 {
    100
}

/// How a quantity in a string looks.
const QUANTITY: &str = r"^[-+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$";

fn basis_100() -> i32 {
    100
}

/// The judge's settings. Evidence are counts of both arms over the same window, from the moment the weight was confirmed.
/// Only a pass of every gate advances; only a fail takes back; no data, too little data and an unreachable Prometheus hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.maxHoldSeconds >= self.intervalSeconds").message("spec.analysis.maxHoldSeconds: must not be less than intervalSeconds, or a step could end before its first look")
)]
pub struct Analysis {
    /// How often the evidence is read, in seconds.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: i32,

    /// How long a step may hold without a verdict, in seconds; then `onHoldExceeded` applies. A candidate that answered none of its requests
    /// until then is taken back in any case.
    #[serde(default = "hour")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub max_hold_seconds: i32,

    /// What happens when a step held for `maxHoldSeconds`.
    #[serde(default)]
    pub on_hold_exceeded: HoldPolicy,

    /// Chance that a candidate which is as good as stable is taken back over the whole rollout, all steps and gates together, in basis points
    /// (1/100 of a percent). Holds however often the evidence is looked at.
    #[serde(default = "basis_100")]
    #[schemars(range(min = 1, max = 2000))]
    pub false_rollback_basis_points: i32,

    /// Gates; all must pass. Default: `errors` (type ErrorRate) and `latency` (type Latency) with their defaults. An empty list means no judge: steps
    /// advance when confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub gates: Option<Vec<Gate>>,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            interval_seconds: 10,
            max_hold_seconds: 3600,
            on_hold_exceeded: HoldPolicy::default(),
            false_rollback_basis_points: 100,
            gates: None,
        }
    }
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
pub struct Gate {
    /// Name of the gate, unique in the list; shown in status and events.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Kind of the gate.
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

/// Kind of a gate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateType {
    /// Share of failed requests (5xx, timeouts, no connection), candidate against concurrent stable.
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
    /// The smallest increase of the share of failed requests worth catching, in basis points (1/100 of a percent): the gate passes once a larger increase is excluded.
    #[serde(default = "ErrorRateGate::default_increase")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_increase_basis_points: i32,

    /// Fewest requests of each arm.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: i32,
}

impl ErrorRateGate {
    fn default_increase() -> i32 {
        200
    }
}

impl Default for ErrorRateGate {
    fn default() -> Self {
        Self { max_increase_basis_points: 200, min_requests: 100 }
    }
}

/// Latency against concurrent stable: the share of the candidate's requests that are slower than stable's quantile times the allowed ratio.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LatencyGate {
    /// Quantile of stable's latency that is compared, in percent.
    #[serde(default = "LatencyGate::default_quantile")]
    #[schemars(range(min = 50, max = 99))]
    pub quantile_percent: i32,

    /// How much slower than stable's quantile a request may be before it counts as slow, in percent of it (150: half as slow again). Rounded up to a histogram bucket.
    #[serde(default = "LatencyGate::default_ratio")]
    #[schemars(range(min = 100, max = 10_000))]
    pub max_ratio_percent: i32,

    /// A request that is answered faster than this is never slow, whatever stable's quantile, in milliseconds. A model of 1 ms beside one of 4 ms is a difference
    /// that no user notices.
    #[serde(default = "LatencyGate::default_floor")]
    #[schemars(range(min = 0, max = 3_600_000))]
    pub min_slow_milliseconds: i32,

    /// The smallest increase of the share of slow requests worth catching, in basis points.
    #[serde(default = "LatencyGate::default_increase")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_increase_basis_points: i32,

    /// Fewest requests of each arm.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: i32,
}

impl LatencyGate {
    fn default_quantile() -> i32 {
        95
    }
    fn default_ratio() -> i32 {
        150
    }
    fn default_floor() -> i32 {
        10
    }
    fn default_increase() -> i32 {
        500
    }
}

impl Default for LatencyGate {
    fn default() -> Self {
        Self {
            quantile_percent: 95,
            max_ratio_percent: 150,
            min_slow_milliseconds: 10,
            max_increase_basis_points: 500,
            min_requests: 100,
        }
    }
}

/// Accuracy from feedback labels against concurrent stable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccuracyGate {
    /// The smallest loss of accuracy worth catching, in basis points: the gate passes once a larger loss is excluded.
    #[serde(default = "AccuracyGate::default_drop")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_drop_basis_points: i32,

    /// Fewest labelled predictions of each arm.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_labels: i32,
}

impl AccuracyGate {
    fn default_drop() -> i32 {
        500
    }
}

impl Default for AccuracyGate {
    fn default() -> Self {
        Self { max_drop_basis_points: 500, min_labels: 100 }
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
    /// Query that yields exactly one number. Variables: `{{candidate}}` and `{{stable}}` (revisions), `{{modeldeployment}}`, `{{namespace}}`, and `{{window}}`: the time since
    /// the weight was confirmed, as a PromQL duration. No series, several series, NaN and infinities hold; they never pass and never fail.
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

    /// How long the weight must have been confirmed before the first look, in seconds.
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = 86_400))]
    pub initial_delay_seconds: i32,

    /// How many looks in a row must be within the thresholds to pass, and out of them to fail.
    #[serde(default = "PromQlGate::default_count")]
    #[schemars(range(min = 1, max = 100))]
    pub consecutive_count: i32,
}

impl PromQlGate {
    fn default_count() -> i32 {
        3
    }
}
