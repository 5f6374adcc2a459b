//! Metrics of gateways that the operator's queries name. All metrics: `docs/metrics.md`.

/// Counter: requests to an arm, each exactly once, by outcome.
pub const GATEWAY_REQUESTS_TOTAL: &str = "slipway_gateway_requests_total";
/// Buckets of the histogram of the time of an arm's own answer, in seconds.
pub const GATEWAY_REQUEST_DURATION_BUCKET: &str = "slipway_gateway_request_duration_seconds_bucket";
/// Counter: labels that came as feedback, by whether the prediction was correct.
pub const GATEWAY_FEEDBACK_TOTAL: &str = "slipway_gateway_feedback_total";
