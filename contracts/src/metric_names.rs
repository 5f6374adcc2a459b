//! Metrics that others than the program that has them name: the operator's queries, the chart's
//! alerts and dashboard, an autoscaler. All metrics: `docs/metrics.md`.
//!
//! The names are those of series, as queries have them. Programs register families, whose names
//! [`family_name`] gives.

/// Counter: requests to an arm, each exactly once, by outcome.
pub const GATEWAY_REQUESTS_TOTAL: &str = "slipway_gateway_requests_total";
/// Buckets of the histogram of an arm's answer times, in seconds.
pub const GATEWAY_REQUEST_DURATION_BUCKET: &str = "slipway_gateway_request_duration_seconds_bucket";
/// Counter: labels received as feedback, by whether the prediction was correct.
pub const GATEWAY_FEEDBACK_TOTAL: &str = "slipway_gateway_feedback_total";
/// Counter: requests of clients, each exactly once, by outcome.
pub const GATEWAY_CLIENT_REQUESTS_TOTAL: &str = "slipway_gateway_client_requests_total";
/// Counter: requests that one arm failed and the other was asked.
pub const GATEWAY_SHIELDED_TOTAL: &str = "slipway_gateway_shielded_total";
/// Gauge: weight of a revision in force.
pub const GATEWAY_WEIGHT_PERMILLE: &str = "slipway_gateway_weight_permille";
/// Gauge: generation of weights in force.
pub const GATEWAY_GENERATION: &str = "slipway_gateway_generation";
/// Gauge: 1 while a gateway keeps traffic from a candidate.
pub const GATEWAY_BRAKED: &str = "slipway_gateway_braked";
/// Counter: outcomes reported, by name.
pub const GATEWAY_OUTCOMES_TOTAL: &str = "slipway_gateway_outcomes_total";
/// Counter: sum of the values of outcomes.
pub const GATEWAY_OUTCOME_VALUE_TOTAL: &str = "slipway_gateway_outcome_value_total";
/// Gauge: rows predicted, by window of feedback.
pub const GATEWAY_WINDOW_PREDICTED_ROWS: &str = "slipway_gateway_window_predicted_rows";
/// Gauge: those of them whose label came.
pub const GATEWAY_WINDOW_LABELLED_ROWS: &str = "slipway_gateway_window_labelled_rows";

/// Buckets of the histogram of the time in the queue of a model server, in seconds.
pub const RUNTIME_QUEUE_DURATION_BUCKET: &str = "slipway_runtime_queue_duration_seconds_bucket";
/// Buckets of the histogram of the time in the engine, in seconds.
pub const RUNTIME_INFERENCE_DURATION_BUCKET: &str =
    "slipway_runtime_inference_duration_seconds_bucket";
/// Counter: predicted rows, by class.
pub const RUNTIME_PREDICTIONS_TOTAL: &str = "slipway_runtime_predictions_total";
/// Sum of the highest probabilities of rows.
pub const RUNTIME_PREDICTION_CONFIDENCE_SUM: &str = "slipway_runtime_prediction_confidence_sum";
/// Number of rows in that sum.
pub const RUNTIME_PREDICTION_CONFIDENCE_COUNT: &str = "slipway_runtime_prediction_confidence_count";
/// Counter: outputs that held a NaN or an infinity.
pub const RUNTIME_NAN_OUTPUTS_TOTAL: &str = "slipway_runtime_nan_outputs_total";
/// Counter: samples that never came to the sink.
pub const RUNTIME_SAMPLES_DROPPED_TOTAL: &str = "slipway_runtime_samples_dropped_total";
/// Counter: rows by bin of the baseline, of each feature.
pub const RUNTIME_FEATURE_BIN_TOTAL: &str = "slipway_runtime_feature_bin_total";
/// Gauge: share of the reference rows in each bin.
pub const RUNTIME_FEATURE_REFERENCE_SHARE: &str = "slipway_runtime_feature_reference_share";
/// Gauge: 95 % quantile of chi-square, of each feature.
pub const RUNTIME_FEATURE_CHI2: &str = "slipway_runtime_feature_chi2";
/// Gauge: rows of the baseline.
pub const RUNTIME_REFERENCE_ROWS: &str = "slipway_runtime_reference_rows";
/// Counter: calibrated probabilities that predictions are right, summed.
pub const RUNTIME_EXPECTED_CORRECT_TOTAL: &str = "slipway_runtime_expected_correct_total";
/// Counter: calibrated probabilities that predictions are wrong, summed.
pub const RUNTIME_EXPECTED_INCORRECT_TOTAL: &str = "slipway_runtime_expected_incorrect_total";
/// Gauge: jobs of the whole queue, by state.
pub const RUNTIME_QUEUE_JOBS: &str = "slipway_runtime_queue_jobs";
/// Gauge: age of the oldest job in the queue, in seconds.
pub const RUNTIME_QUEUE_OLDEST_AGE: &str = "slipway_runtime_queue_oldest_age_seconds";
/// Gauge: whether the queue answered when it was asked last.
pub const RUNTIME_QUEUE_UP: &str = "slipway_runtime_queue_up";

/// Gauge: 1 for each condition of a ModelDeployment that is not as at rest.
pub const OPERATOR_CONDITION: &str = "slipway_operator_condition";
/// Gauge: 1 for each gateway that does worse since it was updated.
pub const OPERATOR_GATEWAY_TROUBLE: &str = "slipway_operator_gateway_trouble";
/// Gauge: whether the process leads.
pub const OPERATOR_LEADER: &str = "slipway_operator_leader";
/// Counter: queries to Prometheus, by result.
pub const OPERATOR_PROMETHEUS_QUERIES_TOTAL: &str = "slipway_operator_prometheus_queries_total";
/// Counter: reconciles, by result.
pub const OPERATOR_RECONCILES_TOTAL: &str = "slipway_operator_reconciles_total";
/// Counter: rollouts that ended, by outcome.
pub const OPERATOR_ROLLOUTS_TOTAL: &str = "slipway_operator_rollouts_total";
/// Counter: watches that ended with an error.
pub const OPERATOR_WATCH_ERRORS_TOTAL: &str = "slipway_operator_watch_errors_total";

/// External metric by which workers are scaled: an adapter makes it from [`RUNTIME_QUEUE_JOBS`].
pub const QUEUE_JOBS: &str = "slipway_queue_jobs";

/// What an exposition adds to the name of a family for the series of counters and histograms.
const SUFFIXES: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];

/// The family of a series: the name by which a program registers it.
pub fn family_name(series: &str) -> &str {
    SUFFIXES.iter().find_map(|suffix| series.strip_suffix(suffix)).unwrap_or(series)
}

/// All of them but [`QUEUE_JOBS`], which no program of Slipway exposes.
pub const ALL: [&str; 35] = [
    GATEWAY_REQUESTS_TOTAL,
    GATEWAY_REQUEST_DURATION_BUCKET,
    GATEWAY_FEEDBACK_TOTAL,
    GATEWAY_CLIENT_REQUESTS_TOTAL,
    GATEWAY_SHIELDED_TOTAL,
    GATEWAY_WEIGHT_PERMILLE,
    GATEWAY_GENERATION,
    GATEWAY_BRAKED,
    GATEWAY_OUTCOMES_TOTAL,
    GATEWAY_OUTCOME_VALUE_TOTAL,
    GATEWAY_WINDOW_PREDICTED_ROWS,
    GATEWAY_WINDOW_LABELLED_ROWS,
    RUNTIME_QUEUE_DURATION_BUCKET,
    RUNTIME_INFERENCE_DURATION_BUCKET,
    RUNTIME_PREDICTIONS_TOTAL,
    RUNTIME_PREDICTION_CONFIDENCE_SUM,
    RUNTIME_PREDICTION_CONFIDENCE_COUNT,
    RUNTIME_NAN_OUTPUTS_TOTAL,
    RUNTIME_SAMPLES_DROPPED_TOTAL,
    RUNTIME_FEATURE_BIN_TOTAL,
    RUNTIME_FEATURE_REFERENCE_SHARE,
    RUNTIME_FEATURE_CHI2,
    RUNTIME_REFERENCE_ROWS,
    RUNTIME_EXPECTED_CORRECT_TOTAL,
    RUNTIME_EXPECTED_INCORRECT_TOTAL,
    RUNTIME_QUEUE_JOBS,
    RUNTIME_QUEUE_OLDEST_AGE,
    RUNTIME_QUEUE_UP,
    OPERATOR_CONDITION,
    OPERATOR_GATEWAY_TROUBLE,
    OPERATOR_LEADER,
    OPERATOR_PROMETHEUS_QUERIES_TOTAL,
    OPERATOR_RECONCILES_TOTAL,
    OPERATOR_ROLLOUTS_TOTAL,
    OPERATOR_WATCH_ERRORS_TOTAL,
];
