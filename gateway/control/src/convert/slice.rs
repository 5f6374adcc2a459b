//! Converts EndpointSlices to endpoints.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use slipway_gateway_policy::config::EndpointGroup;

/// Name of the port that takes requests.
const PORT_NAME: &str = slipway_contracts::ports::HTTP.name;

/// The endpoints of one slice.
pub(super) fn slice_endpoints(slice: &EndpointSlice) -> EndpointGroup {
    let created = slice.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
    let mut group = EndpointGroup { created, ..EndpointGroup::default() };
    for (endpoint, addr) in endpoint_addresses(slice) {
        match endpoint_readiness(endpoint) {
            EndpointReadiness::Ready => _ = group.ready.insert(addr),
            EndpointReadiness::Draining => _ = group.draining.insert(addr),
            EndpointReadiness::Unavailable => {}
        }
    }
    group
}

/// UID and address of each pod in a slice, in any state.
pub(super) fn slice_pods(slice: &EndpointSlice) -> Vec<(String, SocketAddr)> {
    let uid = |endpoint: &Endpoint| endpoint.target_ref.as_ref()?.uid.clone();
    endpoint_addresses(slice).filter_map(|(endpoint, addr)| Some((uid(endpoint)?, addr))).collect()
}

fn endpoint_addresses(slice: &EndpointSlice) -> impl Iterator<Item = (&Endpoint, SocketAddr)> {
    let mut ports =
        slice.ports.iter().flatten().filter(|port| port.name.as_deref() == Some(PORT_NAME));
    let port = ports.find_map(|port| u16::try_from(port.port?).ok());
    let addr = move |endpoint: &Endpoint| {
        let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        Some(SocketAddr::new(ip, port?))
    };
    slice.endpoints.iter().filter_map(move |endpoint| Some((endpoint, addr(endpoint)?)))
}

enum EndpointReadiness {
    Ready,
    Draining,
    Unavailable,
}

fn endpoint_readiness(endpoint: &Endpoint) -> EndpointReadiness {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // According to the API, unknown counts as ready.
    if conditions.ready.unwrap_or(true) {
        EndpointReadiness::Ready
    } else if conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false) {
        EndpointReadiness::Draining
    } else {
        EndpointReadiness::Unavailable
    }
}
