//! Settings of the operator that plans depend on.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use slipway_crds::v1alpha1::PodTemplatePatch;

/// Settings of the operator that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanSettings {
    /// Image of the gateway.
    pub gateway_image: String,
    /// The operator's public key, by which gateways know it; without it they tell everybody their
    /// state.
    pub operator_public_key: Option<String>,
    /// Replicas of a namespace's gateway; with an autoscaler those that it begins with.
    pub gateway_replicas: i32,
    /// Who decides on the number of a gateway's pods later.
    pub gateway_autoscaler: GatewayAutoscaler,
    /// Why the settings of the namespace's own cannot be followed: then its gateway stays as it
    /// is.
    pub gateway_problem: Option<String>,
    /// A part of a pod template that is merged over the gateway's pods, whose container is
    /// `gateway`.
    pub gateway_template: PodTemplatePatch,
    /// Whether pods name their user and group. Not where the platform gives each namespace its own
    /// range of them.
    pub fixed_user_ids: bool,
    /// Image of the model server when the spec names none.
    pub runtime_image: String,
    /// Image of the Redis beside the model server, where the spec has none.
    pub redis_image: String,
    /// Pull policy of both, one of Always, IfNotPresent, Never.
    pub image_pull_policy: String,
    /// Names of Secrets with credentials for both, looked up in the namespace of the
    /// ModelDeployment.
    pub image_pull_secrets: Vec<String>,
    /// Further matchers of the judge's queries, as PromQL writes them.
    pub prometheus_matchers: Vec<String>,
    /// Whether gates of type PromQL are judged.
    pub promql_gates: bool,
    /// Where gateways and model servers send traces.
    pub tracing: Option<TracingSettings>,
    /// Who may reach the pods; nothing: no policies are made, and those that were are taken away.
    pub network_policies: Option<NetworkPolicies>,
}

/// Whom NetworkPolicies let through, besides those without whom nothing works.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkPolicies {
    /// To the data port of gateways; none: everybody.
    pub data_from: Vec<NetworkPolicyPeer>,
    /// To the private port of gateways, besides the pods of their namespace.
    pub private_from: Vec<NetworkPolicyPeer>,
    /// To the ports of metrics and administration; none: everybody.
    pub metrics_from: Vec<NetworkPolicyPeer>,
    /// The operator's own pods.
    pub operator: Vec<NetworkPolicyPeer>,
    /// Further ports that stay open to everybody: those at which a service mesh takes connections.
    pub open_ports: Vec<u16>,
}

/// Traces of gateways and model servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingSettings {
    /// Base URL of an OTLP collector that takes HTTP with protobuf.
    pub endpoint: String,
    /// Requests of a million that are traced, with or without a client's own trace.
    pub per_million: u32,
}

/// Who decides on the number of a gateway's pods, and between what bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GatewayAutoscaler {
    /// Nobody but the operator.
    #[default]
    None,
    /// One that the operator makes.
    Ours {
        /// Fewest pods.
        min_replicas: i32,
        /// Most pods.
        max_replicas: i32,
        /// Average CPU of a pod, in cores.
        target_average_cpu: Quantity,
    },
    /// One of the user's own.
    External,
}
