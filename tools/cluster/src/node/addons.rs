//! Objects that a normal cluster has in `kube-system`: the Services of DNS and of metrics, which
//! lead to processes on the node; and, if a test needs it, that of external metrics.

use serde_json::{Value, json};

use crate::layout::{self, ClusterLayout};
use crate::node::components::{EXTERNAL_METRICS_PORT, METRICS_PORT};

/// The objects to apply, as one list. An API that is registered but not served would block
/// deletions of namespaces.
pub fn addon_manifests(layout: &ClusterLayout, with_metrics: bool) -> Value {
    let dns_ports = [("dns", 53, 53, "UDP"), ("dns-tcp", 53, 53, "TCP")];
    let metrics_ports = [("https", 443, METRICS_PORT, "TCP")];
    let dns = Some(layout::DNS_SERVICE_IP.to_string());
    let mut items = vec![
        service_manifest("kube-dns", dns, &dns_ports),
        endpoint_slice(layout, "kube-dns", &dns_ports),
    ];
    if with_metrics {
        items.push(service_manifest("metrics-server", None, &metrics_ports));
        items.push(endpoint_slice(layout, "metrics-server", &metrics_ports));
        items.push(api_service(METRICS_API, "metrics-server"));
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// The same for prometheus-adapter.
pub fn external_metrics(layout: &ClusterLayout) -> Value {
    let ports = [("https", 443, EXTERNAL_METRICS_PORT, "TCP")];
    json!({"apiVersion": "v1", "kind": "List", "items": [
        service_manifest("prometheus-adapter", None, &ports),
        endpoint_slice(layout, "prometheus-adapter", &ports),
        api_service(EXTERNAL_METRICS_API, "prometheus-adapter"),
    ]})
}

/// Name, port of the Service, port on the node, protocol.
type ServicePort = (&'static str, u16, u16, &'static str);

fn service_manifest(name: &str, cluster_ip: Option<String>, ports: &[ServicePort]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port, target, protocol)| json!({"name": name, "port": port, "targetPort": target, "protocol": protocol}))
        .collect();
    // The processes behind the Services have one family.
    let mut spec = json!({"ports": ports, "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    if let Some(ip) = cluster_ip {
        spec["clusterIP"] = json!(ip);
    }
    let metadata = json!({"name": name, "namespace": "kube-system", "labels": {"k8s-app": name}});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

fn endpoint_slice(layout: &ClusterLayout, name: &str, ports: &[ServicePort]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, _, target, protocol)| json!({"name": name, "port": target, "protocol": protocol}))
        .collect();
    let labels = json!({"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "slipway-e2e"});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [layout.node_ip()], "conditions": {"ready": true}}],
        "ports": ports,
    })
}

/// `name` is `<version>.<group>`.
fn api_service(name: &str, service: &str) -> Value {
    let (version, group) = name.split_once('.').unwrap_or_default();
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name},
        "spec": {
            "service": {"name": service, "namespace": "kube-system"},
            "group": group,
            "version": version,
            "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    })
}

/// Name of the APIService of metrics-server.
pub const METRICS_API: &str = "v1beta1.metrics.k8s.io";
/// Name of the APIService of prometheus-adapter.
pub const EXTERNAL_METRICS_API: &str = "v1beta1.external.metrics.k8s.io";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_lead_to_the_node() {
        let layout = ClusterLayout::new("one").unwrap();
        let (list, external) = (addon_manifests(&layout, true), external_metrics(&layout));
        let [items, external] = [&list, &external].map(|list| list["items"].as_array().unwrap());
        assert_eq!(items[0]["spec"]["clusterIP"], "10.96.0.10");
        assert_eq!(external[2]["spec"]["group"], "external.metrics.k8s.io");
        for slice in items.iter().chain(external).filter(|item| item["kind"] == "EndpointSlice") {
            assert_eq!(slice["endpoints"][0]["addresses"][0], layout.node_ip().to_string());
        }
    }
}
