//! Limits and timings of this process.

use std::path::PathBuf;
use std::time::Duration;

use slipway_contracts::files::KEYS_DIRECTORY;
use slipway_listener::OperatorPublicKey;

/// Limits and timings of this process.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// Namespace whose hosts (`<name>.<namespace>.svc`) this gateway serves.
    pub namespace: String,
    /// Name of this pod, as reported to the operator.
    pub pod_name: String,
    /// Largest request body that is buffered for retries and the shield, independent of the
    /// ModelDeployment; larger ones are streamed to stable.
    pub max_buffered_request: usize,
    /// Largest answer of a candidate that is buffered before the client receives it; larger ones
    /// are streamed.
    pub max_buffered_response: usize,
    /// Memory limit for all buffered bodies together.
    pub max_buffered_total: usize,
    /// Largest accepted request body.
    pub max_body: u64,
    /// Maximum number of client connections.
    pub max_connections: usize,
    /// Maximum number of concurrent client requests.
    pub max_in_flight: usize,
    /// How long feedback for a prediction is accepted.
    pub feedback_ttl: Duration,
    /// Number of predictions whose feedback is remembered, so that none counts twice.
    pub max_remembered_feedback: usize,
    /// Directory with the files of the Secret `slipway-keys`.
    pub keys_directory: PathBuf,
    /// Key that authenticates the operator for `/v1/state`; when `None`, every client is answered.
    pub operator_key: Option<OperatorPublicKey>,
    /// Maximum number of concurrent streams of `/v1/state`; a new one replaces another.
    pub max_state_streams: usize,
    /// Time for a client to send the head of its request; also how long a connection may idle.
    pub header_timeout: Duration,
    /// Time limit to connect to a pod.
    pub connect_timeout: Duration,
    /// How long an unused connection to a pod is kept.
    pub pool_idle: Duration,
    /// How long a request waits for an endpoint of stable when there is none.
    pub endpoint_wait: Duration,
    /// Replays independent of stable's traffic, per 10 s.
    pub shield_floor: u64,
    /// Further replays per 10 s, in percent of stable's requests.
    pub shield_percent: u64,
    /// How long the series of a revision outlive it.
    pub series_retention: Duration,
    /// On SIGTERM: how long to continue serving while the endpoints propagate.
    pub drain_delay: Duration,
    /// After that: time limit of the requests in flight; when `None`, the longest time limit of
    /// any ModelDeployment.
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
            // Longer than the pools of common clients (90 s), so that clients close idle
            // connections and no request is sent on a connection that is being closed.
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
