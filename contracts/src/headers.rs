//! HTTP headers between clients, gateways and model servers. In lower case, as HTTP/2 has them.

/// How the headers of Slipway begin. Gateways remove what clients send under it.
pub const PREFIX: &str = "x-slipway-";

/// Response: the revision that answered. Only where the spec asks for it, and at the port
/// `private`.
pub const REVISION: &str = "x-slipway-revision";
/// Response: the candidate whose failure stable made up for.
pub const SHIELDED: &str = "x-slipway-shielded";
/// Response: the id with which a client sends feedback.
pub const PREDICTION_ID: &str = "x-slipway-prediction-id";
/// Response: `hit`, `miss` or `bypass` of the result cache.
pub const CACHE: &str = "x-slipway-cache";
/// Response: number of outputs that hold a NaN.
pub const NAN_OUTPUTS: &str = "x-slipway-nan-outputs";

/// Request, gateway to pod: largest body in bytes.
pub const MAX_REQUEST_BYTES: &str = "x-slipway-max-request-bytes";
/// Request, gateway to pod: number of jobs that may wait.
pub const QUEUE_MAX_JOBS: &str = "x-slipway-queue-max-jobs";
/// Request, gateway to pod: hosts that callbacks may go to, separated by commas.
pub const CALLBACK_ALLOW: &str = "x-slipway-callback-allow";
/// Request, gateway to pod: proof that the client has shown the token of the namespace.
pub const ACCESS: &str = "x-slipway-access";
/// Response, pod to gateway: report of a prediction, from which the gateway makes the id.
pub const PREDICTION: &str = "x-slipway-prediction";
/// Request, gateway to gateway: feedback that was passed on once.
pub const FEEDBACK_HOP: &str = "x-slipway-feedback-hop";
/// Request of a callback: number of the attempt, from 1.
pub const ATTEMPT: &str = "x-slipway-attempt";

/// Request: the client's deadline in milliseconds. It only shortens the one of the spec.
pub const REQUEST_TIMEOUT_MS: &str = "x-request-timeout-ms";

/// All headers under [`PREFIX`].
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
