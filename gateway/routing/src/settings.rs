//! Bounds and timings of this process.

use std::path::PathBuf;
use std::time::Duration;

use slipway_contracts::files::KEYS_DIRECTORY;
use slipway_listener::OperatorPublicKey;

/// Bounds and timings of this process.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// Namespace whose hosts (`<name>.<namespace>.svc`) are ours.
    pub namespace: String,
    /// Name of this pod, as reported to the operator.
    pub pod_name: String,
    /// Largest request body that is kept for retries and the shield, whatever a ModelDeployment
    /// says; larger ones stream to stable.
    pub max_buffered_request: usize,
    /// Largest answer of a candidate that is read whole before the client sees it; larger ones
    /// stream.
    pub max_buffered_response: usize,
    /// All bodies kept in memory at one time.
    pub max_buffered_total: usize,
    /// Largest request body at all.
    pub max_body: u64,
    /// Client connections at one time.
    pub max_connections: usize,
    /// Client requests at one time.
    pub max_in_flight: usize,
    /// How long feedback for a prediction is taken.
    pub feedback_ttl: Duration,
    /// Predictions whose feedback is remembered, so that none counts twice.
    pub max_remembered_feedback: usize,
    /// Where the files of the Secret `slipway-keys` are.
    pub keys_directory: PathBuf,
    /// By what the operator is known that asks for `/v1/state`; without it everybody is answered.
    pub operator_key: Option<OperatorPublicKey>,
    /// Streams of `/v1/state` at one time; the newest takes the place of another.
    pub max_state_streams: usize,
    /// Time for a client to send its request's head; also how long a connection may idle.
    pub header_timeout: Duration,
    /// Time to connect to a pod.
    pub connect_timeout: Duration,
    /// How long an unused connection to a pod is kept.
    pub pool_idle: Duration,
    /// How long a request waits for an endpoint of stable when there is none.
    pub endpoint_wait: Duration,
    /// Replays without regard to stable's traffic, per 10 s.
    pub shield_floor: u64,
    /// Further replays per 10 s, in percent of stable's requests.
    pub shield_percent: u64,
    /// How long series of a revision outlive it.
    pub series_retention: Duration,
    /// On SIGTERM: how long to serve on while the endpoints propagate.
    pub drain_delay: Duration,
    /// Then: how long requests in flight may take; as long as any ModelDeployment's requests may
    /// when absent.
    pub drain_timeout: Option<Duration>,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            namespace: "default".into(),
            pod_name: "slipway-gateway".into(),
            max_buffered_request: 128 << 20,
            max_buffered_response: 4 << 20,
            max_buffered_total: 256 << 20,
            max_body: 512 << 20,
            max_connections: 10_000,
            max_in_flight: 4096,
            feedback_ttl: Duration::from_secs(24 * 3600),
            max_remembered_feedback: 500_000,
            keys_directory: KEYS_DIRECTORY.into(),
            operator_key: None,
            max_state_streams: 16,
            // Longer than the pools of common clients (90 s), so that it is the client who closes
            // an idle connection and no request meets a closing one.
            header_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(1),
            pool_idle: Duration::from_secs(30),
            endpoint_wait: Duration::from_secs(1),
            shield_floor: 500,
            shield_percent: 20,
            series_retention: Duration::from_secs(600),
            drain_delay: Duration::from_secs(5),
            drain_timeout: None,
        }
    }
}
