//! The configuration of the gateway: the only types between Kubernetes and the data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use slipway_crds::routing::RoutingClaims;

/// Role of a revision in the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArmRole {
    /// The revision to which traffic returns.
    Stable,
    /// The revision under test.
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

/// The weight of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    pub revision: String,
    pub role: ArmRole,
    /// Its weight in thousandths.
    pub permille: u32,
}

/// The weights as the operator wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficWeights {
    /// Increases with every change. The operator never writes 0: it marks weights that the gateway
    /// had to assume.
    pub generation: i64,
    /// Revisions and their weights.
    pub backends: Vec<WeightedBackend>,
    /// The revision behind the preview address.
    pub preview: Option<String>,
}

/// The shield of one ModelDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShieldConfig {
    /// Whether failures of the candidate are replayed to stable.
    pub enabled: bool,
    /// Time limit of the candidate before the request is sent to stable, too; derived from
    /// stable's 99th percentile when `None`.
    pub candidate_timeout: Option<Duration>,
}

/// The brake of one ModelDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeConfig {
    /// Whether it can trip at all.
    pub enabled: bool,
    /// Number of failures before it can trip.
    pub min_failures: u64,
    /// Window size in requests, 1 to 64.
    pub window: u32,
    /// Failure rate in the window at which it trips, in millionths.
    pub failure_millionths: u64,
}

impl BrakeConfig {
    /// The brake of a ModelDeployment without settings.
    pub const DEFAULT: Self =
        Self { enabled: true, min_failures: 10, window: 50, failure_millionths: 500_000 };
}

/// Settings sent to pods with the requests they concern, so that a change takes effect without new
/// pods. They are values of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSettings {
    /// Value of `x-slipway-queue-max-jobs`, on job requests.
    pub max_jobs: Option<HeaderValue>,
    /// Value of `x-slipway-callback-allow`, on job requests: entries separated by commas; empty
    /// allows no destination.
    pub callback_allow: Option<HeaderValue>,
}

/// The configuration of one ModelDeployment.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub name: String,
    /// Its UID: another object of the same name is another ModelDeployment.
    pub uid: String,
    /// Creation in seconds since 1970: of several that claim the same host or model name the
    /// oldest holds it.
    pub created: i64,
    /// Its claims besides the addresses of its Services: declared hosts, and the model name.
    pub claims: RoutingClaims,
    /// The weights; `None` when the status contains none.
    pub weights: Option<TrafficWeights>,
    /// The stable revision according to the status, for the case without weights.
    pub stable: Option<String>,
    /// Deadline of one request.
    pub timeout: Duration,
    /// Largest accepted request body; pods receive the same limit.
    pub max_request: usize,
    /// Whether no pod is wanted.
    pub scaled_to_zero: bool,
    /// Whether its pods cache answers, so that equal requests should reach the same pod.
    pub caching: bool,
    /// Start time of the rollout as in the status: it identifies the rollout.
    pub rollout: String,
    /// Header that contains the entity.
    pub sticky_header: Option<HeaderName>,
    /// Whether predictions may be sent more than once.
    pub replay: bool,
    pub shield: ShieldConfig,
    pub brake: BrakeConfig,
    /// Settings sent to pods.
    pub pod_settings: PodSettings,
    /// Names of the outcomes that feedback may report.
    pub outcomes: Vec<String>,
    /// Whether answers contain their revision.
    pub reveals_revision: bool,
}

/// The endpoints of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointGroup {
    pub ready: BTreeSet<SocketAddr>,
    /// Terminating pods that still serve: used when none is ready.
    pub draining: BTreeSet<SocketAddr>,
    /// Creation of the first EndpointSlice of the revision, in seconds; it orders revisions by
    /// age.
    pub created: i64,
}

/// The endpoints of one ModelDeployment, by revision.
pub type RevisionEndpoints = BTreeMap<String, EndpointGroup>;

/// The key of an [`EndpointGroup`]: ModelDeployment and revision.
pub type GroupKey = (String, String);

/// The complete configuration of the gateway at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingSnapshot {
    /// ModelDeployments by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// Endpoints by ModelDeployment and revision.
    pub endpoints: BTreeMap<GroupKey, EndpointGroup>,
}
