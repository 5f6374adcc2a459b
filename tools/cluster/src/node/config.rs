//! Configuration files of the components, rendered from the layout.

use std::net::Ipv6Addr;

use serde_json::{Value, json};

use crate::error::{HarnessError, Result};
use crate::families::{self, IpFamilies};
use crate::layout::{self, ClusterLayout};
use crate::node::pki;

/// The image of the container that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "docker.io/slipway/pause:dev";
/// containerd's socket, as processes on the node see it.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Writes every file; returns no paths, because they follow from the layout.
pub fn write_configs(layout: &ClusterLayout) -> Result<()> {
    let etc = layout.config_dir();
    let files = [
        ("containerd.toml", containerd_config(layout)),
        ("cni/10-slipway.conflist", cni_config(layout.families())),
        ("kubelet.json", format!("{:#}", kubelet_config(layout))),
        ("Corefile", coredns_config(layout)),
        ("prometheus.yml", prometheus_config(layout)),
        ("audit.json", format!("{:#}", audit_policy())),
        // Pods with `dnsPolicy: Default` get a file without name servers: none outside of the
        // cluster is reachable.
        ("resolv.conf", "options ndots:5\n".into()),
    ];
    for (name, text) in files {
        let path = etc.join(name);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(HarnessError::io("create", dir))?;
        }
        std::fs::write(&path, text).map_err(HarnessError::io("write", &path))?;
    }
    Ok(())
}

fn containerd_config(layout: &ClusterLayout) -> String {
    let conf_dir = layout.config_dir().join("cni");
    // Without `restrict_oom_score_adj` runc fails where CAP_SYS_RESOURCE is missing, which is
    // common in sandboxes.
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = {conf_dir:?}
"#
    )
}

/// Routed links instead of a bridge: a reply cannot bypass the node's address translation, and
/// there is no bridge to clean up.
fn cni_config(families: IpFamilies) -> String {
    let mut all = vec![(layout::NODE_POD_CIDR, "0.0.0.0/0")];
    if families.has_ipv6() {
        all.push((families::NODE_POD_CIDR, "::/0"));
    }
    let ipam = json!({
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": all.iter().map(|(range, _)| json!([{"subnet": range}])).collect::<Vec<_>>(),
        "routes": all.iter().map(|(_, everywhere)| json!({"dst": everywhere})).collect::<Vec<_>>(),
    });
    let ptp = json!({"type": "ptp", "ipMasq": false, "ipam": ipam});
    format!("{:#}\n", json!({"cniVersion": "0.4.0", "name": "slipway", "plugins": [ptp]}))
}

fn kubelet_config(layout: &ClusterLayout) -> Value {
    let pki = layout.pki_dir();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"x509": {"clientCAFile": pki.join("ca.crt")}, "webhook": {"enabled": true}, "anonymous": {"enabled": false}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join("kubelet-server.crt"),
        "tlsPrivateKeyFile": pki.join("kubelet-server.key"),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "clusterDNS": [layout::DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": layout.config_dir().join("resolv.conf"),
        "address": layout.families().first_address(layout.node_ip(), Ipv6Addr::UNSPECIFIED),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.cgroup_name()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        // Images are imported, not pulled: an image that was collected could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        // The disk belongs to the developer, so only low memory causes an eviction.
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "maxPods": 200,
        // Tests create and delete pods often; with the defaults each of them takes a minute longer.
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
    })
}

fn coredns_config(layout: &ClusterLayout) -> String {
    let (ip, kubeconfig) = (layout.node_ip(), pki::kubeconfig_path(layout, "admin"));
    // No cache: a Service or pod that a test just created must resolve at once.
    format!(
        r#".:53 {{
    bind {ip}
    errors
    ready {ip}:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    loadbalance
}}
"#,
        kubeconfig.display()
    )
}

fn prometheus_config(layout: &ClusterLayout) -> String {
    let rule =
        |sources: &[&str], target: &str| json!({"source_labels": sources, "target_label": target});
    let matching = |source: &str, action: &str, regex: &str| json!({"source_labels": [source], "action": action, "regex": regex});
    let annotation = |name: &str| format!("__meta_kubernetes_pod_annotation_prometheus_io_{name}");
    let mut path = rule(&[&annotation("path")], "__metrics_path__");
    path["regex"] = json!("(.+)");
    let address = |of_pod: &str, replacement: &str| {
        let mut address = rule(&["__meta_kubernetes_pod_ip", &annotation("port")], "__address__");
        address["regex"] = json!(format!(r"({of_pod});(\d+)"));
        address["replacement"] = json!(replacement);
        address
    };
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{
            "job_name": "pods",
            // For servers that send no content type.
            "fallback_scrape_protocol": "PrometheusText0.0.4",
            "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": pki::kubeconfig_path(layout, "admin")}],
            "relabel_configs": [
                matching(&annotation("scrape"), "keep", "true"),
                matching("__meta_kubernetes_pod_phase", "drop", "Pending|Succeeded|Failed|Completed"),
                path,
                address("[^;:]+", "$1:$2"),
                address("[^;]*:[^;]*", "[$1]:$2"),
                rule(&["__meta_kubernetes_namespace"], "namespace"),
                rule(&["__meta_kubernetes_pod_name"], "pod"),
            ],
        }],
    });
    format!("{config:#}\n")
}

/// Records who changed what, without reads and leases.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "resources": [{"group": "coordination.k8s.io"}, {"group": "", "resources": ["events"]}]},
            {"level": "None", "userGroups": ["system:nodes"]},
            {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "Metadata", "verbs": ["get", "list", "watch"], "userGroups": ["system:serviceaccounts"]},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_stays_in_its_cgroup_and_tolerates_old_hierarchies() {
        let config = kubelet_config(&ClusterLayout::new("one").unwrap());
        assert_eq!(config["cgroupRoot"], "/slipway-e2e-one");
        assert_eq!(config["failCgroupV1"], false);
        assert_eq!(config["clusterDNS"][0], "10.96.0.10");
    }

    #[test]
    fn containerd_needs_no_registry_and_no_capability() {
        let config = containerd_config(&ClusterLayout::new("one").unwrap());
        assert!(config.contains("restrict_oom_score_adj = true"));
        assert!(config.contains(&format!("sandbox = \"{PAUSE_IMAGE}\"")));
    }

    #[test]
    fn prometheus_labels_by_namespace_and_pod() {
        let config: Value =
            serde_json::from_str(&prometheus_config(&ClusterLayout::new("one").unwrap())).unwrap();
        assert_eq!(config["global"]["scrape_interval"], "1s");
        let rules = config["scrape_configs"][0]["relabel_configs"].as_array().unwrap();
        let targets: Vec<&str> =
            rules.iter().filter_map(|rule| rule["target_label"].as_str()).collect();
        // One rule for addresses of each family.
        assert_eq!(targets, ["__metrics_path__", "__address__", "__address__", "namespace", "pod"]);
    }

    #[test]
    fn dns_answers_on_the_node_address() {
        let layout = ClusterLayout::new("one").unwrap();
        assert!(coredns_config(&layout).contains(&format!("bind {}", layout.node_ip())));
    }
}
