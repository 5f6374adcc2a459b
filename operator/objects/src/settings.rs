//! Settings of the operator that plans depend on.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use slipway_crds::v1alpha1::PodTemplatePatch;

/// Settings of the operator that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanSettings {
    pub gateway_image: String,
    /// The operator's public key, with which gateways authenticate it; without it gateways send
    /// their state to every client.
    pub operator_public_key: Option<String>,
    /// Replicas of a namespace's gateway; the initial number if there is an autoscaler.
    pub gateway_replicas: i32,
    /// What determines the number of a gateway's pods later.
    pub gateway_autoscaler: GatewayAutoscaler,
    /// Why the settings of the namespace are invalid; its gateway then does not change.
    pub gateway_problem: Option<String>,
    /// A part of a pod template that is merged over the gateway's pods; the container is
    /// `gateway`.
    pub gateway_template: PodTemplatePatch,
    /// Whether pods set their user and group ids. False on platforms that assign a range of ids to
    /// each namespace.
    pub fixed_user_ids: bool,
    /// Image of the model server if the spec names none.
    pub runtime_image: String,
    /// Image of the Redis sidecar if the spec names none.
    pub redis_image: String,
    /// Pull policy of the operator's images: Always, IfNotPresent or Never.
    pub image_pull_policy: String,
    /// Names of Secrets with registry credentials for these images, in the namespace of the
    /// ModelDeployment.
    pub image_pull_secrets: Vec<String>,
    /// Additional label matchers for the judge's queries, in PromQL.
    pub prometheus_matchers: Vec<String>,
    /// Whether gates of type PromQL are allowed.
    pub promql_gates: bool,
    /// Where gateways and model servers send traces.
    pub tracing: Option<TracingSettings>,
    /// Network access to the pods; `None` disables policies, and existing ones are deleted.
    pub network_policies: Option<NetworkPolicies>,
}

/// The peers that NetworkPolicies allow in addition to those that Slipway needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkPolicies {
    /// Peers for the data port of gateways; empty allows all.
    pub data_from: Vec<NetworkPolicyPeer>,
    /// Peers for the private port of gateways, in addition to the pods of their namespace.
    pub private_from: Vec<NetworkPolicyPeer>,
    /// Peers for the ports of metrics and administration; empty allows all.
    pub metrics_from: Vec<NetworkPolicyPeer>,
    /// The operator's own pods.
    pub operator: Vec<NetworkPolicyPeer>,
    /// Additional ports that are open to all peers: those at which a service mesh accepts
    /// connections.
    pub open_ports: Vec<u16>,
}

/// Tracing of gateways and model servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingSettings {
    /// Base URL of an OTLP collector that accepts HTTP with protobuf.
    pub endpoint: String,
    /// Number of traced requests per million, with or without a trace of the client.
    pub per_million: u32,
}

/// What determines the number of a gateway's pods, and its bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GatewayAutoscaler {
    /// Only the operator's setting `gateway_replicas`.
    #[default]
    None,
    /// An autoscaler that the operator creates.
    Ours {
        /// Minimum number of pods.
        min_replicas: i32,
        /// Maximum number of pods.
        max_replicas: i32,
        /// Target for the average CPU usage of a pod, in cores.
        target_average_cpu: Quantity,
    },
    /// An autoscaler that the user operates.
    External,
}
