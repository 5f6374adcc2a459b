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
    /// Services, for example the host of an Ingress. A request with such a `Host` or `:authority`,
    /// whatever its port and case, is handled like a request to the Service. For all other hosts
    /// the model name decides, in the path `/v2/models/<name>` or in the gRPC message. Within a
    /// namespace a host belongs to the oldest ModelDeployment that declares it; the others report
    /// it in the condition `Conflicted`. Lower case, at least two labels, no wildcards.
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

    /// Deadline of one request in seconds, including retries and shield; after it the client gets
    /// 504. The gateway sends the deadline to model servers (`x-request-timeout-ms`,
    /// `grpc-timeout`), and terminating pods finish their requests within it.
    #[serde(default = "thirty_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i32,

    /// Largest body of a request, in bytes. Gateways buffer this much, so that a request can be
    /// sent again, and Slipway's model server rejects larger ones (413). Larger requests go to the
    /// stable revision only, whose pods may accept them if they run another image: the candidate
    /// never receives them, so it is not judged by them either, and the status reports that such
    /// requests exist.
    #[serde(default = "sixteen_mebibytes")]
    #[schemars(extend("minimum" = 65_536, "maximum" = 134_217_728, "pattern" = MEMORY))]
    pub max_request_size: Quantity,

    /// Keeps the requests of an entity on the same side of the split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stickiness: Option<StickinessSpec>,

    /// Whether answers name their revision in `x-slipway-revision`, and in `x-slipway-shielded`
    /// the revision whose failure the shield hid. Disabled by default, because a client that knows
    /// its revision can choose what it sends to the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_header: Option<RevisionHeader>,

    /// Enabled (default): predictions are pure functions, so gateways may send a request to more
    /// than one pod: again if a pod breaks the connection, and to the stable revision if the
    /// candidate fails or is slow (`shield`). Disabled, for servers whose predictions have side
    /// effects: no POST is sent again once a pod may have read it, so clients see failures of
    /// pods, and the shield covers only requests that were never sent.
    #[serde(default)]
    pub replay: ReplayMode,

    /// Replays requests that the candidate failed to answer to the stable revision.
    #[serde(default)]
    pub shield: ShieldSpec,

    /// Lets each gateway stop sending requests to a failing candidate, immediately and on its own.
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

/// Whether a prediction may run more than once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayMode {
    /// Predictions are pure functions.
    #[default]
    Enabled,
    /// Predictions have side effects.
    Disabled,
}

/// Stickiness: an entity that was routed to the candidate at a small weight stays there at a larger
/// one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.header.lowerAscii() in ['host', 'connection', 'content-length', 'content-type', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'keep-alive', 'accept', 'accept-encoding'])").message("spec.traffic.stickiness.header: describes the connection or the body, not who asks; name a header that tells clients apart, such as x-user-id")
)]
pub struct StickinessSpec {
    /// Request header whose value identifies the entity, for example `x-user-id`. Each request
    /// without it is assigned independently.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub header: String,
}

/// Whether answers name the revision that produced them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionHeader {
    /// Enabled (default, if `revisionHeader` is set): each answer names its revision. Disabled: no
    /// answer does.
    #[serde(default)]
    pub mode: RevisionHeaderMode,
}

/// Whether answers name their revision.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RevisionHeaderMode {
    /// Answers name their revision.
    #[default]
    Enabled,
    /// Answers do not name their revision.
    Disabled,
}

/// The shield: a prediction is a pure function, so the stable revision can answer a request that
/// the candidate failed to answer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ShieldSpec {
    /// Enabled (default): requests that the candidate failed to answer are replayed to the stable
    /// revision. Disabled: clients receive the failures.
    #[serde(default)]
    pub mode: ShieldMode,

    /// How long the candidate may take before the gateway also asks the stable revision, in
    /// milliseconds. Default: four times the 99th percentile that the gateway observes for the
    /// stable revision, at least 500; 1000 until it has observed enough requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub candidate_timeout_milliseconds: Option<i32>,
}

/// Whether the shield is enabled.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShieldMode {
    /// Requests that the candidate failed to answer are replayed to the stable revision.
    #[default]
    Enabled,
    /// Clients receive the candidate's failures.
    Disabled,
}

/// The brake: a fixed bound on the candidate's own failures, enforced by each gateway pod
/// independently.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BrakeSpec {
    /// Enabled (default): each gateway stops sending requests to a candidate that exceeds the
    /// bounds below. Disabled: only the judge can roll the candidate back.
    #[serde(default)]
    pub mode: BrakeMode,

    /// Minimum number of failures of the candidate (5xx, timeouts, failed connections) before the
    /// brake can act, counted by each gateway pod since the current weight was set.
    #[serde(default = "default_min_failures")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min_failures: i32,

    /// Number of the candidate's most recent requests that the brake evaluates.
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

/// Whether the brake is enabled.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrakeMode {
    /// Each gateway may stop sending requests to a candidate.
    #[default]
    Enabled,
    /// Only the judge can roll a candidate back.
    Disabled,
}
