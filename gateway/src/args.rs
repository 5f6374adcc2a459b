//! The command line; every argument can also be set by an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use slipway_contracts::{environment, files, ports};
use slipway_gateway_routing::settings::ProcessSettings;
use slipway_listener::OperatorPublicKey;

/// The data plane of Slipway: splits the requests for a model between its revisions, exactly by the
/// weights that the operator sets.
#[derive(Clone, Debug, Parser)]
#[command(name = "slipway-gateway", version)]
pub struct GatewayArgs {
    /// Namespace whose ModelDeployments are served.
    #[arg(long, env = environment::POD_NAMESPACE, default_value = "default")]
    pub namespace: String,
    /// Name of this pod, as told to the operator.
    #[arg(long, env = environment::POD_NAME, default_value = "slipway-gateway")]
    pub pod_name: String,
    /// Address of the data port.
    #[arg(long, env = "SLIPWAY_LISTEN", default_value_t = ports::HTTP.at_every_address())]
    pub listen: SocketAddr,
    /// Address of the port for clients with the token of the Secret `slipway-keys`: feedback,
    /// feature rows, previews.
    #[arg(long, env = "SLIPWAY_PRIVATE_LISTEN", default_value_t = ports::PRIVATE.at_every_address())]
    pub private_listen: SocketAddr,
    /// Directory with the files of the Secret `slipway-keys`: `master` and `token`.
    #[arg(long, env = environment::KEYS_DIRECTORY, default_value = files::KEYS_DIRECTORY)]
    pub keys_directory: PathBuf,
    /// Age in seconds after which a prediction accepts no more feedback.
    #[arg(long, env = "SLIPWAY_FEEDBACK_TTL_SECONDS", default_value_t = 24 * 3600, value_parser = clap::value_parser!(u64).range(1..=366 * 86_400))]
    pub feedback_ttl_seconds: u64,
    /// Number of predictions whose feedback is remembered, so that none counts twice: about 40
    /// bytes each.
    #[arg(long, env = "SLIPWAY_MAX_REMEMBERED_FEEDBACK", default_value_t = 500_000, value_parser = count_parser())]
    pub max_remembered_feedback: usize,
    /// Address of the admin port.
    #[arg(long, env = "SLIPWAY_ADMIN_LISTEN", default_value_t = ports::GATEWAY_ADMIN.at_every_address())]
    pub admin_listen: SocketAddr,
    /// Public key of the operator (Ed25519, base64): `/v1/state` of the admin port answers nobody
    /// else. Everybody when absent.
    #[arg(long, env = environment::OPERATOR_PUBLIC_KEY, value_name = "BASE64")]
    pub operator_public_key: Option<OperatorPublicKey>,
    /// Number of threads; when omitted, as many as the CPU quota allows.
    #[arg(long, env = "SLIPWAY_THREADS", value_parser = RangedU64ValueParser::<usize>::new().range(0..=1024))]
    pub threads: Option<usize>,
    /// Log filter, for example `info,slipway_gateway=debug`. The watch also logs the errors that
    /// kube's client logs.
    #[arg(long, env = "SLIPWAY_LOG", default_value = "info,kube_client=off")]
    pub log: String,
    /// Largest request body that is buffered for retries and the shield, in bytes, independent of
    /// `spec.traffic.maxRequestSize`. Larger ones are streamed to stable only.
    #[arg(long, env = "SLIPWAY_MAX_BUFFERED_REQUEST_BYTES", default_value_t = 128 << 20)]
    pub max_buffered_request_bytes: usize,
    /// Largest answer of a candidate that is buffered before the client receives it, in bytes.
    #[arg(long, env = "SLIPWAY_MAX_BUFFERED_RESPONSE_BYTES", default_value_t = 4 << 20)]
    pub max_buffered_response_bytes: usize,
    /// Limit for all buffered bodies together, in bytes. Beyond it bodies are streamed.
    #[arg(long, env = "SLIPWAY_MAX_BUFFERED_TOTAL_BYTES", default_value_t = 256 << 20)]
    pub max_buffered_total_bytes: usize,
    /// Largest accepted request body, in bytes.
    #[arg(long, env = "SLIPWAY_MAX_BODY_BYTES", default_value_t = 512 << 20)]
    pub max_body_bytes: u64,
    /// Maximum number of client connections. Beyond it idle connections are closed, silent ones
    /// and those of the largest peer first.
    #[arg(long, env = "SLIPWAY_MAX_CONNECTIONS", default_value_t = 10_000, value_parser = count_parser())]
    pub max_connections: usize,
    /// Maximum number of concurrent requests; beyond it clients get 503 with Retry-After.
    #[arg(long, env = "SLIPWAY_MAX_IN_FLIGHT", default_value_t = 4096, value_parser = count_parser())]
    pub max_in_flight: usize,
    /// Time limit for the head of a request, and for idle connections: longer than the idle
    /// timeout of load balancers (600 s for those of the large clouds), so that none sends a
    /// request on a connection that is being closed.
    #[arg(long, env = "SLIPWAY_HEADER_TIMEOUT_SECONDS", default_value_t = 620, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub header_timeout_seconds: u64,
    /// Time limit to connect to a pod.
    #[arg(long, env = "SLIPWAY_CONNECT_TIMEOUT_MILLISECONDS", default_value_t = 1000)]
    pub connect_timeout_milliseconds: u64,
    /// Failed replays of the shield per ten seconds that are allowed independent of stable's
    /// traffic.
    #[arg(long, env = "SLIPWAY_SHIELD_FLOOR", default_value_t = 500)]
    pub shield_floor: u64,
    /// Further failed replays, in percent of stable's requests.
    #[arg(long, env = "SLIPWAY_SHIELD_PERCENT", default_value_t = 20)]
    pub shield_percent: u64,
    /// On SIGTERM: how long to continue serving while the endpoints propagate.
    #[arg(long, env = "SLIPWAY_DRAIN_DELAY_SECONDS", default_value_t = 5)]
    pub drain_delay_seconds: u64,
    /// After the drain delay: time limit of the requests in flight. Default: the longest
    /// `spec.traffic.timeoutSeconds` of the namespace.
    #[arg(long, env = "SLIPWAY_DRAIN_TIMEOUT_SECONDS", value_parser = clap::value_parser!(u64).range(..=604_800))]
    pub drain_timeout_seconds: Option<u64>,
}

/// Limited because a semaphore panics at far greater counts.
fn count_parser() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=u64::from(u32::MAX))
}

impl GatewayArgs {
    /// The settings of these arguments.
    pub fn to_settings(&self) -> ProcessSettings {
        ProcessSettings {
            namespace: self.namespace.clone(),
            pod_name: self.pod_name.clone(),
            max_buffered_request: self.max_buffered_request_bytes,
            max_buffered_response: self.max_buffered_response_bytes,
            max_buffered_total: self.max_buffered_total_bytes,
            max_body: self.max_body_bytes,
            max_connections: self.max_connections,
            max_in_flight: self.max_in_flight,
            feedback_ttl: Duration::from_secs(self.feedback_ttl_seconds),
            max_remembered_feedback: self.max_remembered_feedback,
            keys_directory: self.keys_directory.clone(),
            operator_key: self.operator_public_key.clone(),
            header_timeout: Duration::from_secs(self.header_timeout_seconds),
            connect_timeout: Duration::from_millis(self.connect_timeout_milliseconds),
            shield_floor: self.shield_floor,
            shield_percent: self.shield_percent,
            drain_delay: Duration::from_secs(self.drain_delay_seconds),
            drain_timeout: self.drain_timeout_seconds.map(Duration::from_secs),
            ..ProcessSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_the_operator_sets_is_read() {
        let command = GatewayArgs::command();
        let read: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_env).collect();
        for name in environment::GATEWAY {
            assert!(read.iter().any(|it| *it == name), "{name} is not among {read:?}");
        }
    }
}
