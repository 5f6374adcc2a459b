//! Paths of HTTP that one program asks another for, or the kubelet a program. The state stream's is
//! in [`state`](crate::state).

/// At ports of metrics: whether the process runs.
pub const LIVENESS: &str = "/livez";
/// At ports of metrics: whether the pod takes requests.
pub const READINESS: &str = "/readyz";
/// At ports of metrics: all series.
pub const METRICS: &str = "/metrics";
/// At the port `metrics` of a model server: its most asked inputs, for a pod that starts.
pub const HOT_INPUTS: &str = "/v1/cache/hot";

/// The Open Inference Protocol.
pub const PROTOCOL: &str = "/v2";
/// Of that protocol: whether the server runs.
pub const SERVER_LIVE: &str = "/v2/health/live";
/// Of that protocol: whether the server is ready.
pub const SERVER_READY: &str = "/v2/health/ready";
/// Of that protocol: models, each under its name.
pub const MODELS: &str = "/v2/models/";
