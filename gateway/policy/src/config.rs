//! What the gateway is told: the only types that stand between Kubernetes and the data plane.

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
