//! How a candidate is judged.

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

/// Pattern of a quantity in a string.
const QUANTITY: &str =
    r"^[-+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$";

fn one_percent() -> Percentage {
    Percentage::from_text("1%")
}

/// Settings of the judge. The evidence consists of counts of both revisions over the same window,
/// which starts when the weight was confirmed. The rollout advances only if every gate passes, and
/// is rolled back only if a gate fails. It holds on missing data, too little data and an
/// unreachable Prometheus.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.mode == 'Custom') == (has(self.gates) && size(self.gates) > 0)").message("spec.analysis.gates: required when mode is Custom, and only allowed then; mode Default judges errors and latency, mode Disabled judges nothing"),
    validation = Rule::new("self.maxHoldSeconds >= self.intervalSeconds").message("spec.analysis.maxHoldSeconds: must not be less than intervalSeconds, or a step could end before its first look")
)]
pub struct AnalysisSpec {
    /// Interval at which the operator reads the evidence, in seconds.
    #[serde(default = "ten_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: i32,

    /// How long a step may hold without a verdict, in seconds; then `onHoldExceeded` applies. A
    /// candidate that answered none of its requests in that time is rolled back in any case.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub max_hold_seconds: i32,

    /// What happens when a step held for `maxHoldSeconds`. Pause (default): the rollout waits for
    /// a user at its current weight. Abort: the candidate is rolled back.
    #[serde(default)]
    pub on_hold_exceeded: HoldPolicy,

    /// Probability that a candidate which is as good as stable is rolled back during the whole
    /// rollout, over all steps and gates together: a percentage from 0.01 to 20. It holds
    /// independently of how often the evidence is evaluated.
    #[serde(default = "one_percent")]
    #[schemars(extend("minimum" = 1, "maximum" = 20, "pattern" = SHARE))]
    pub false_rollback_rate: Percentage,

    /// Which gates judge the candidate. Default: the gates `errors` (type ErrorRate) and `latency`
    /// (type Latency) with their defaults. Custom: the gates of this list. Disabled: no gates; a
    /// step ends when its weight is confirmed.
    #[serde(default)]
    pub mode: AnalysisMode,

    /// Gates; all must pass. Only allowed with mode Custom.
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

/// Which gates judge a candidate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnalysisMode {
    /// The default gates for errors and latency.
    #[default]
    Default,
    /// The gates of the spec.
    Custom,
    /// No gates.
    Disabled,
}

/// What happens when a step has held for `maxHoldSeconds`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldPolicy {
    /// The rollout waits for a user at its current weight.
    #[default]
    Pause,
    /// The candidate is rolled back.
    Abort,
}

/// One gate of the analysis.
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

    /// Type of the gate. ErrorRate: share of failed requests (5xx, timeouts, failed connections).
    /// Latency: share of slow requests. Accuracy: share of correct predictions by feedback labels.
    /// These compare the candidate with stable over the same time. PromQL: compares the single
    /// number that a query returns with thresholds.
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
    /// A gate with a name and a type, and otherwise defaults.
    pub fn of_type(name: impl Into<String>, type_: GateType) -> Self {
        let name = name.into();
        Self { name, type_, error_rate: None, latency: None, accuracy: None, prom_ql: None }
    }
}

/// Type of a gate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateType {
    /// Share of failed requests (5xx, timeouts, failed connections) of the candidate, compared with
    /// stable at the same time.
    ErrorRate,
    /// Share of slow requests of the candidate, compared with stable at the same time.
    Latency,
    /// Share of correct predictions of the candidate by feedback labels, compared with stable at
    /// the same time.
    Accuracy,
    /// A PromQL query that returns one number, compared with thresholds.
    #[serde(rename = "PromQL")]
    PromQl,
}

/// Compares the error rates of the candidate and stable at the same time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRateGate {
    /// Smallest increase of the share of failed requests worth detecting, in percent of the
    /// requests: the gate passes once a larger increase is excluded. Default: 2%.
    #[serde(default = "ErrorRateGate::default_increase")]
    #[schemars(extend("minimum" = 1, "maximum" = 100, "pattern" = SHARE))]
    pub max_increase: Percentage,

    /// Minimum number of requests of each revision. Default: 100.
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

/// Compares the latency of the candidate and stable at the same time: the share of the candidate's
/// requests that are slower than stable's quantile times the allowed ratio.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LatencyGate {
    /// Quantile of stable's latency to compare with: a percentage from 50 to 99.9. Default: 95%.
    #[serde(default = "LatencyGate::default_quantile")]
    #[schemars(extend("minimum" = 50, "maximum" = 99, "pattern" = r"^[5-9][0-9]([.][0-9]{1,4})?%$"))]
    pub quantile: Percentage,

    /// Latency above which a request counts as slow, in percent of stable's quantile (`150%`: one
    /// and a half times the quantile), from 100 to 10000. Rounded up to a histogram bucket.
    /// Default: 150%.
    #[serde(default = "LatencyGate::default_ratio")]
    #[schemars(extend("minimum" = 100, "maximum" = 10_000, "pattern" = r"^[1-9][0-9]{2,4}([.][0-9]{1,4})?%$"))]
    pub max_ratio: Percentage,

    /// A request that is answered faster than this never counts as slow, whatever stable's
    /// quantile is, in milliseconds: users do not notice the difference between a model of 1 ms
    /// and one of 4 ms. Default: 10.
    #[serde(default = "LatencyGate::default_floor")]
    #[schemars(range(min = 0, max = 3_600_000))]
    pub min_slow_milliseconds: i32,

    /// Smallest increase of the share of slow requests worth detecting, in percent of the
    /// requests. Default: 5%.
    #[serde(default = "LatencyGate::default_increase")]
    #[schemars(extend("minimum" = 1, "maximum" = 100, "pattern" = SHARE))]
    pub max_increase: Percentage,

    /// Minimum number of requests of each revision. Default: 100.
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

/// Compares the accuracy of the candidate and stable at the same time, computed from feedback
/// labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccuracyGate {
    /// Smallest loss of accuracy worth detecting, in percent of the predictions: the gate passes
    /// once a larger loss is excluded. Default: 5%.
    #[serde(default = "AccuracyGate::default_drop")]
    #[schemars(extend("minimum" = 1, "maximum" = 100, "pattern" = SHARE))]
    pub max_drop: Percentage,

    /// Minimum number of labelled predictions of each revision. Default: 100.
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

/// Compares the single number that a PromQL query returns with thresholds.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.min) || has(self.max)").message("spec.analysis.gates.promQL: give min, max or both, or the gate could not fail"),
    validation = Rule::new("self.query.contains('{{candidate}}') || self.query.contains('{{stable}}')").message("spec.analysis.gates.promQL.query: must name a revision by {{candidate}} or {{stable}}, or it would judge old revisions too"),
    // Integers only: parsing a quantity in a string exceeds the cost budget. The operator checks
    // other values.
    validation = Rule::new("!has(self.min) || !has(self.max) || type(self.min) != int || type(self.max) != int || int(self.min) <= int(self.max)").message("spec.analysis.gates.promQL: min must not be greater than max, or no value could pass; swap them")
)]
pub struct PromQlGate {
    /// Query that returns exactly one number. Variables: `{{candidate}}` and `{{stable}}`
    /// (revisions), `{{modeldeployment}}`, `{{namespace}}`, and `{{window}}`: the time since the
    /// weight was confirmed, as a PromQL duration. On no series, several series, NaN or an
    /// infinity the gate holds; it neither passes nor fails.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,

    /// Smallest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY))]
    pub min: Option<Quantity>,

    /// Largest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY))]
    pub max: Option<Quantity>,

    /// Time between the confirmation of the weight and the first evaluation, in seconds. Default:
    /// 10.
    #[serde(default = "ten_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub initial_delay_seconds: i32,

    /// Number of consecutive evaluations within the thresholds to pass, and outside of them to
    /// fail. Default: 3.
    #[serde(default = "PromQlGate::default_count")]
    #[schemars(range(min = 1, max = 100))]
    pub consecutive_count: i32,
}

impl PromQlGate {
    fn default_count() -> i32 {
        3
    }
}
