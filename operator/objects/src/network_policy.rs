//! NetworkPolicies: network access to the pods.
//!
//! Only ingress is restricted, not egress: users choose where models, feature rows and traces are.
//! Policies are additive: a user's own policy can open more, but cannot close what is open here. So
//! only the ports of Slipway's programs are restricted; ports that the containers of a template
//! declare stay open, as do those of a service mesh.

use k8s_openapi::api::core::v1::{Container, ContainerPort};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{ModelDeployment, PodTemplatePatch};

use crate::desired::DesiredObject;
use crate::hash::with_applied_hash;
use crate::meta::{
    LabelMap, controlled_metadata, gateway_selector, label_map, label_selector, object_labels,
    revision_labels, runtime_selector, shared_metadata, worker_labels, worker_selector,
};
use crate::reserved::{GATEWAY_ADMIN, HTTP, METRICS, PRIVATE, revision_name, worker_name};
use crate::settings::{NetworkPolicies, PlanSettings};

/// Peers of a rule; `None` allows all.
type PolicyPeers = Option<Vec<NetworkPolicyPeer>>;

/// The policy of the gateways of a namespace; `None` if policies are disabled.
pub fn gateway_network_policy(
    object: &ModelDeployment,
    settings: &PlanSettings,
) -> Option<DesiredObject> {
    let policies = settings.network_policies.as_ref()?;
    let mut rules = vec![
        // A new model pod fetches the hot keys from the address of its ModelDeployment.
        ingress_rule(tcp_ports([HTTP.1]), allowed_peers(&policies.data_from, vec![slipway_peer()])),
        ingress_rule(
            tcp_ports([PRIVATE.1]),
            Some([vec![namespace_peer()], policies.private_from.clone()].concat()),
        ),
        ingress_rule(
            tcp_ports([GATEWAY_ADMIN.1]),
            allowed_peers(&policies.metrics_from, policies.operator.clone()),
        ),
    ];
    rules.extend(open_rule(
        policies,
        declared_ports(&settings.gateway_template, &[HTTP.1, PRIVATE.1, GATEWAY_ADMIN.1]),
    ));
    Some(build_policy(shared_metadata(object), gateway_selector(), rules))
}

/// The policy of the model servers of all revisions of a ModelDeployment.
pub fn network_policy(object: &ModelDeployment, settings: &PlanSettings) -> Option<DesiredObject> {
    let policies = settings.network_policies.as_ref()?;
    let name = object.name_any();
    // A gateway in the host network has its node's address, which no selector matches.
    let on_host =
        settings.gateway_template.spec.as_ref().is_some_and(|pod| pod.host_network == Some(true));
    let gateways = (!on_host).then(|| vec![pod_peer(gateway_selector())]);
    let alike = vec![pod_peer(runtime_selector(&name))];
    let mut rules = vec![
        ingress_rule(tcp_ports([HTTP.1]), gateways),
        // A new pod fetches the hot keys from a serving one.
        ingress_rule(tcp_ports([METRICS.1]), allowed_peers(&policies.metrics_from, alike)),
    ];
    rules.extend(open_rule(policies, Vec::new()));
    Some(build_policy(
        controlled_metadata(object, name.clone(), object_labels(&name)),
        runtime_selector(&name),
        rules,
    ))
}

/// The policy of the workers of a ModelDeployment, which only serve metrics and probes.
pub fn worker_network_policy(
    object: &ModelDeployment,
    settings: &PlanSettings,
) -> Option<DesiredObject> {
    let policies = settings.network_policies.as_ref()?;
    let name = object.name_any();
    let mut rules = vec![ingress_rule(
        tcp_ports([METRICS.1]),
        allowed_peers(&policies.metrics_from, Vec::new()),
    )];
    rules.extend(open_rule(policies, Vec::new()));
    Some(build_policy(
        controlled_metadata(object, worker_name(&name), worker_labels(&name)),
        worker_selector(&name),
        rules,
    ))
}

/// The policy of all pods of a revision whose template declares additional ports, which are open to
/// all peers. There is one for each revision, because the template of another revision may declare
/// other ports, and both have pods during a rollout.
pub fn template_network_policy(
    object: &ModelDeployment,
    settings: &PlanSettings,
    revision: &str,
) -> Option<DesiredObject> {
    let ports = declared_ports(&object.spec.template, &[HTTP.1, METRICS.1]);
    settings.network_policies.as_ref().filter(|_| !ports.is_empty())?;
    let name = object.name_any();
    let selector = label_map([(labels::MODEL_DEPLOYMENT, &name), (labels::REVISION, revision)]);
    let metadata = controlled_metadata(
        object,
        revision_name(&name, revision),
        revision_labels(&name, revision),
    );
    Some(build_policy(metadata, selector, vec![ingress_rule(ports, None)]))
}

fn build_policy(
    metadata: ObjectMeta,
    selector: LabelMap,
    rules: Vec<NetworkPolicyIngressRule>,
) -> DesiredObject {
    with_applied_hash(DesiredObject::NetworkPolicy(NetworkPolicy {
        metadata,
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(selector)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(rules),
            egress: None,
        }),
    }))
}

fn ingress_rule(ports: Vec<NetworkPolicyPort>, from: PolicyPeers) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { ports: Some(ports), from }
}

/// The rule for ports that are open to all peers, on pods with additional ports.
fn open_rule(
    policies: &NetworkPolicies,
    mut ports: Vec<NetworkPolicyPort>,
) -> Option<NetworkPolicyIngressRule> {
    ports.extend(tcp_ports(policies.open_ports.iter().map(|port| i32::from(*port))));
    (!ports.is_empty()).then(|| ingress_rule(ports, None))
}

/// The peers that the administrator configured, and those that Slipway needs; all peers if none are
/// configured.
fn allowed_peers(peers: &[NetworkPolicyPeer], needed: Vec<NetworkPolicyPeer>) -> PolicyPeers {
    (!peers.is_empty()).then(|| [needed, peers.to_vec()].concat())
}

/// The peer for pods of the namespace with these labels.
fn pod_peer(selector: LabelMap) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(label_selector(selector)),
        ..NetworkPolicyPeer::default()
    }
}

fn slipway_peer() -> NetworkPolicyPeer {
    pod_peer(label_map([(labels::MANAGED_BY, labels::MANAGER)]))
}

fn namespace_peer() -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    }
}

fn tcp_ports(ports: impl IntoIterator<Item = i32>) -> Vec<NetworkPolicyPort> {
    ports.into_iter().map(|number| policy_port(number, "TCP")).collect()
}

fn policy_port(number: i32, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    }
}

/// The ports that the containers of a template declare, except `ours`, which cannot be opened by
/// declaring them.
fn declared_ports(template: &PodTemplatePatch, ours: &[i32]) -> Vec<NetworkPolicyPort> {
    let Some(pod) = &template.spec else { return Vec::new() };
    let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    let ports = containers.flat_map(|container: &Container| container.ports.iter().flatten());
    let theirs = ports.filter(|it| !ours.contains(&it.container_port));
    theirs
        .map(|it: &ContainerPort| {
            policy_port(it.container_port, it.protocol.as_deref().unwrap_or("TCP"))
        })
        .collect()
}
