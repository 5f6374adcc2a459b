//! What the gateway is told: the only types that stand between Kubernetes and the data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use slipway_crds::routing::RoutingClaims;
use slipway_listener::OperatorPublicKey;

/// Role of a revision in the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArmRole {
    /// The revision to which traffic returns.
    Stable,
    /// The revision on trial.
    Candidate,
}

impl ArmRole {
    /// As a label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Candidate => "candidate",
        }
    }
}

/// One revision's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    /// The revision.
    pub revision: String,
    /// Its role.
    pub role: ArmRole,
    /// Its share in thousandths.
    pub permille: u32,
}

/// The weights as the operator wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficWeights {
    /// Grows with every change. 0 is never written by the operator: it marks weights that the
    /// gateway had to guess.
    pub generation: i64,
    /// Revisions and their shares.
    pub backends: Vec<WeightedBackend>,
    /// The revision behind the preview address.
    pub preview: Option<String>,
}

/// The shield of one ModelDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShieldConfig {
    /// Whether failures of the candidate are replayed to stable.
    pub enabled: bool,
    /// How long the candidate may take before stable is asked, too; found by stable's 99th
    /// percentile when absent.
    pub candidate_timeout: Option<Duration>,
}

/// The brake of one ModelDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeConfig {
    /// Whether it acts at all.
    pub enabled: bool,
    /// Failures before the brake can act.
    pub min_failures: u64,
    /// How many of the last requests are looked at, 1 to 64.
    pub window: u32,
    /// Share of failures among them at which it acts, in millionths.
    pub failure_millionths: u64,
}

impl BrakeConfig {
    /// That of a ModelDeployment that says nothing.
    pub const DEFAULT: Self =
        Self { enabled: true, min_failures: 10, window: 50, failure_millionths: 500_000 };
}

/// What pods are told with requests that it concerns, because it takes effect without other pods:
/// values of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSettings {
    /// For `x-slipway-queue-max-jobs`, of jobs.
    pub max_jobs: Option<HeaderValue>,
    /// For `x-slipway-callback-allow`, of jobs: entries separated by commas; empty for nowhere.
    pub callback_allow: Option<HeaderValue>,
}

/// One ModelDeployment.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Its name.
    pub name: String,
    /// Its uid: another object of the same name is another ModelDeployment.
    pub uid: String,
    /// Creation in seconds since 1970: of several that claim the same host or model name the
    /// oldest holds it.
    pub created: i64,
    /// By what it wants to be reached besides the addresses of its Services: declared hosts, and
    /// the name of the model.
    pub claims: RoutingClaims,
    /// The weights; absent when the status has none (yet, or any more).
    pub weights: Option<TrafficWeights>,
    /// The revision that the status calls stable, for when there are no weights.
    pub stable: Option<String>,
    /// Deadline of one request.
    pub timeout: Duration,
    /// Largest request body that is kept, and that pods are told to take.
    pub max_request: usize,
    /// Whether no pod is wanted.
    pub scaled_to_zero: bool,
    /// Whether its pods keep answers, so that equal requests should meet the same pod.
    pub caching: bool,
    /// Since when the rollout runs, in the words of the status: it tells rollouts apart.
    pub rollout: String,
    /// Header that names the entity.
    pub sticky_header: Option<HeaderName>,
    /// Whether predictions may be sent more than once.
    pub replay: bool,
    /// The shield.
    pub shield: ShieldConfig,
    /// The brake.
    pub brake: BrakeConfig,
    /// What pods are told.
    pub pod_settings: PodSettings,
    /// Names of the outcomes that feedback may report.
    pub outcomes: Vec<String>,
    /// Whether answers say which revision they are of.
    pub reveals_revision: bool,
}

/// The endpoints of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointGroup {
    /// Ready pods.
    pub ready: BTreeSet<SocketAddr>,
    /// Pods that shut down and still serve: used when none is ready.
    pub draining: BTreeSet<SocketAddr>,
    /// When the first EndpointSlice of the revision was created, in seconds; orders revisions by
    /// age.
    pub created: i64,
}

/// The endpoints of one ModelDeployment, by revision.
pub type RevisionEndpoints = BTreeMap<String, EndpointGroup>;

/// The key of an [`EndpointGroup`]: ModelDeployment and revision.
pub type GroupKey = (String, String);

/// Everything the gateway is told, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingSnapshot {
    /// ModelDeployments by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// Endpoints by ModelDeployment and revision.
    pub endpoints: BTreeMap<GroupKey, EndpointGroup>,
}

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
            keys_directory: "/var/run/slipway/keys".into(),
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
