//! The Services.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::desired::DesiredObject;
use crate::hash::with_applied_hash;
use crate::meta::{
    LabelMap, controlled_metadata, gateway_selector, object_labels, revision_labels,
    revision_selector, shared_metadata,
};
use crate::reserved::{HTTP, PRIVATE, preview_name, revision_name};

/// The headless Service `<name>-<revision>`: from its EndpointSlices the gateway reads which pods
/// of the revision are ready.
pub fn revision_service(object: &ModelDeployment, revision: &str) -> DesiredObject {
    let name = object.name_any();
    with_applied_hash(DesiredObject::Service(Service {
        metadata: controlled_metadata(
            object,
            revision_name(&name, revision),
            revision_labels(&name, revision),
        ),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(false),
            selector: Some(revision_selector(&name, revision)),
            ports: Some(vec![service_port(HTTP.0, HTTP.1)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }))
}

/// The Service `<name>`: the stable address. It selects the gateway of the namespace, so it never
/// changes during a rollout.
pub fn stable_service(object: &ModelDeployment) -> DesiredObject {
    let name = object.name_any();
    let labels = object_labels(&name);
    service_to_gateway(
        object,
        name,
        labels,
        vec![service_port(HTTP.0, 80), service_port(PRIVATE.0, PRIVATE.1)],
    )
}

/// The Service `<name>-preview` of blue-green: the gateway sends requests for this host to the
/// candidate. Only clients that present the token of the namespace can use it, because the
/// candidate has not been judged.
pub fn preview_service(object: &ModelDeployment) -> DesiredObject {
    let name = object.name_any();
    service_to_gateway(
        object,
        preview_name(&name),
        object_labels(&name),
        vec![service_port(PRIVATE.0, PRIVATE.1)],
    )
}

/// The headless Service of the gateways, which discover each other by its EndpointSlices.
pub fn gateway_service(object: &ModelDeployment) -> DesiredObject {
    with_applied_hash(DesiredObject::Service(Service {
        metadata: shared_metadata(object),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(false),
            selector: Some(gateway_selector()),
            ports: Some(vec![service_port(PRIVATE.0, PRIVATE.1)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }))
}

fn service_to_gateway(
    object: &ModelDeployment,
    name: String,
    labels: LabelMap,
    ports: Vec<ServicePort>,
) -> DesiredObject {
    with_applied_hash(DesiredObject::Service(Service {
        metadata: controlled_metadata(object, name, labels),
        spec: Some(ServiceSpec {
            selector: Some(gateway_selector()),
            ports: Some(ports),
            // With an address of each family in a dual-stack cluster. Headless Services do not need
            // this, because their clients are Slipway's programs, which need one address of a pod.
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }))
}

/// The target is the named port of the pod, so that the Service does not depend on its number.
fn service_port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        // Part of the merge key of the list.
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
