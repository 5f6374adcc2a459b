//! HTTP headers between clients, gateways and model servers. In lower case, as in HTTP/2.

/// Prefix of Slipway's headers. Gateways remove those that clients send.
pub const PREFIX: &str = "x-slipway-";

/// Response: the revision that answered. Only if the spec enables it, or at the port `private`.
pub const REVISION: &str = "x-slipway-revision";
/// Response: the candidate whose failure stable compensated.
pub const SHIELDED: &str = "x-slipway-shielded";
/// Response: the id with which a client sends feedback.
pub const PREDICTION_ID: &str = "x-slipway-prediction-id";
/// Response: `hit`, `miss` or `bypass` of the result cache.
pub const CACHE: &str = "x-slipway-cache";
/// Response: number of outputs that contain a NaN.
pub const NAN_OUTPUTS: &str = "x-slipway-nan-outputs";

/// Request, gateway to pod: largest accepted body in bytes.
pub const MAX_REQUEST_BYTES: &str = "x-slipway-max-request-bytes";
/// Request, gateway to pod: maximum number of waiting jobs.
pub const QUEUE_MAX_JOBS: &str = "x-slipway-queue-max-jobs";
/// Request, gateway to pod: hosts that are allowed for callbacks, separated by commas.
pub const CALLBACK_ALLOW: &str = "x-slipway-callback-allow";
/// Request, gateway to pod: proof that the client has presented the token of the namespace.
pub const ACCESS: &str = "x-slipway-access";
/// Response, pod to gateway: report on a prediction, from which the gateway creates the id.
pub const PREDICTION: &str = "x-slipway-prediction";
/// Request, gateway to gateway: feedback that has been forwarded once.
pub const FEEDBACK_HOP: &str = "x-slipway-feedback-hop";
/// Request of a callback: number of the attempt, from 1.
pub const ATTEMPT: &str = "x-slipway-attempt";

/// Request: the client's deadline in milliseconds. It can only shorten that of the spec.
pub const REQUEST_TIMEOUT_MS: &str = "x-request-timeout-ms";

/// All headers with [`PREFIX`].
pub const ALL: [&str; 12] = [
    REVISION,
    SHIELDED,
    PREDICTION_ID,
    CACHE,
    NAN_OUTPUTS,
    MAX_REQUEST_BYTES,
    QUEUE_MAX_JOBS,
    CALLBACK_ALLOW,
    ACCESS,
    PREDICTION,
    FEEDBACK_HOP,
    ATTEMPT,
];
