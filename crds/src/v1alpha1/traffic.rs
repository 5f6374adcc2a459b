//! How traffic is split and protected.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{MEMORY, Percentage, SHARE};

fn thirty_seconds() -> i32 {
    30
}

fn sixteen_mebibytes() -> Quantity {
    Quantity("16Mi".to_owned())
}

fn default_min_failures() -> i32 {
    10
}

fn default_window() -> i32 {
    50
}

fn default_failure_rate() -> Percentage {
    Percentage::from_text("50%")
}

/// How traffic reaches the revisions.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.shield) || !has(self.shield.candidateTimeoutMilliseconds) || self.shield.candidateTimeoutMilliseconds < self.timeoutSeconds * 1000").message("spec.traffic.shield.candidateTimeoutMilliseconds: must be less than spec.traffic.timeoutSeconds, or no time would be left to ask the stable revision"),
    validation = Rule::new("!has(self.hosts) || self.hosts.all(h, !h.matches('^[^.]+[.][^.]+[.]svc([.]|$)'))").message("spec.traffic.hosts: must not be the address of a Service (<name>.<namespace>.svc), which is known without being declared; declare the names that clients outside of the cluster use")
)]
pub struct TrafficSpec {
    /// DNS names under which clients reach this ModelDeployment besides the addresses of its
    /// Services, for example the host of an Ingress: a request with such a `Host` or `:authority`,
    /// whatever its port and case, is answered as one to its Service. At any other host the name
    /// of the model decides, in the path `/v2/models/<name>` or in the message of gRPC. In a
    /// namespace a host belongs to the oldest ModelDeployment that declares it; the others say so
    /// in the condition `Conflicted`. Lower case, at least two labels, no wildcards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(
            length(min = 3, max = 253),
            regex(
                pattern = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
            )
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hosts: Vec<String>,

    /// Deadline of one request in seconds, retries and shield included; then the client gets 504.
    /// Model servers are told of it (`x-request-timeout-ms`, `grpc-timeout`), and pods that leave
    /// finish what they began within it.
    #[serde(default = "thirty_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i32,

    /// Largest body of a request, in bytes: gateways keep so much of it, so that it can be sent
    /// again, and Slipway's model server takes no more (413). Larger requests go to the stable
    /// revision only, whose pods may take them when they run another image: the candidate never
    /// sees them, so it is not judged by them either, and the status says so when there are some.
    #[serde(default = "sixteen_mebibytes")]
    #[schemars(extend("minimum" = 65_536, "maximum" = 134_217_728, "pattern" = MEMORY))]
    pub max_request_size: Quantity,

    /// Keeps an entity on its side of the split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stickiness: Option<StickinessSpec>,

    /// Whether answers say in `x-slipway-revision` which revision they are of, and in
    /// `x-slipway-shielded` whose failure the client was spared. Disabled unless it is asked for:
    /// who knows its revision can choose what it sends to the one on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_header: Option<RevisionHeader>,

    /// Enabled (default): predictions are pure functions, so gateways may send one to more than
    /// one pod: again when a pod breaks off, to the stable revision when the candidate fails or is
    /// slow (`shield`). Disabled, for servers whose predictions have effects: no POST is sent
    /// again once a pod may have read it, so clients see what a pod fails, and of the shield only
    /// what was never sent is left.
    #[serde(default)]
    pub replay: ReplayMode,

    /// Replays to the stable revision what the candidate failed to answer.
    #[serde(default)]
    pub shield: ShieldSpec,

    /// Lets each gateway take a failing candidate out by itself, at once.
    #[serde(default)]
    pub brake: BrakeSpec,
}

impl Default for TrafficSpec {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            timeout_seconds: 30,
            max_request_size: sixteen_mebibytes(),
            stickiness: None,
            revision_header: None,
            replay: ReplayMode::default(),
            shield: ShieldSpec::default(),
            brake: BrakeSpec::default(),
        }
    }
}

/// Whether predictions may run more than once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayMode {
    /// They are pure.
    #[default]
    Enabled,
    /// They have effects.
    Disabled,
}

/// Stickiness: an entity that saw the candidate at a small weight still sees it at a larger one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.header.lowerAscii() in ['host', 'connection', 'content-length', 'content-type', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'keep-alive', 'accept', 'accept-encoding'])").message("spec.traffic.stickiness.header: describes the connection or the body, not who asks; name a header that tells clients apart, such as x-user-id")
)]
pub struct StickinessSpec {
    /// Request header whose value names the entity, for example `x-user-id`. Requests without it
    /// are split without memory.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub header: String,
}

/// Whether clients are told which revision answered them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionHeader {
    /// Enabled (default, where there is a `revisionHeader`): each answer names its revision.
    /// Disabled: none does.
    #[serde(default)]
    pub mode: RevisionHeaderMode,
}

/// Whether answers name their revision.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RevisionHeaderMode {
    /// They do.
    #[default]
    Enabled,
    /// They do not.
    Disabled,
}

/// The shield: a prediction is a pure function, so a failed answer of the candidate can be asked of
/// the stable revision instead.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ShieldSpec {
    /// Enabled (default): failures of the candidate are replayed to the stable revision. Disabled:
    /// clients see them.
    #[serde(default)]
    pub mode: ShieldMode,

    /// How long the candidate may take before the stable revision is asked, too, in milliseconds.
    /// Default: four times the 99th percentile that the gateway observes of the stable revision,
    /// at least 500; 1000 while it has observed too little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub candidate_timeout_milliseconds: Option<i32>,
}

/// Whether the shield is up.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShieldMode {
    /// Failures of the candidate are replayed to the stable revision.
    #[default]
    Enabled,
    /// Clients see the candidate's failures.
    Disabled,
}

/// The brake: a hard bound on the candidate's own failures, held by each gateway pod without asking
/// anybody.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BrakeSpec {
    /// Enabled (default): each gateway takes a candidate out that fails as said below. Disabled:
    /// only the judge does.
    #[serde(default)]
    pub mode: BrakeMode,

    /// Failures of the candidate (5xx, timeouts, no connection) before the brake can act, counted
    /// by each gateway pod since the current weight was set.
    #[serde(default = "default_min_failures")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min_failures: i32,

    /// How many of the candidate's last requests are looked at.
    #[serde(default = "default_window")]
    #[schemars(range(min = 10, max = 64))]
    pub window_requests: i32,

    /// Share of failures among these requests at which the brake acts.
    #[serde(default = "default_failure_rate")]
    #[schemars(extend("minimum" = 1, "maximum" = 100, "pattern" = SHARE))]
    pub failure_rate: Percentage,
}

impl Default for BrakeSpec {
    fn default() -> Self {
        Self {
            mode: BrakeMode::default(),
            min_failures: 10,
            window_requests: 50,
            failure_rate: default_failure_rate(),
        }
    }
}

/// Whether the brake is on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrakeMode {
    /// Each gateway may take a candidate out.
    #[default]
    Enabled,
    /// Only the judge takes a candidate back.
    Disabled,
}
