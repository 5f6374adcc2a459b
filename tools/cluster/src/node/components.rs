//! The components of a node and their command lines.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::Result;
use crate::families;
use crate::layout::{self, ClusterLayout};
use crate::node::pki;
use crate::process::NodeComponent;

/// How the readiness of a component is checked.
#[derive(Debug, Clone, Copy)]
pub enum ReadinessProbe {
    /// `GET` of this path on this port of the node answers 200.
    Http(u16, &'static str),
    /// The same over TLS, with the administrator's certificate.
    Api(&'static str),
    /// Another component's probe covers it.
    None,
}

/// Options of `up`.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpOptions {
    /// Whether the apiserver writes an audit log.
    pub audit: bool,
    /// Whether programs that only the promises need are included: Prometheus and metrics-server,
    /// and the program of prometheus-adapter. The demo uses the Prometheus of the chart, and no
    /// autoscaling by CPU.
    pub all: bool,
}

/// The key-value store.
pub fn new_etcd(layout: &ClusterLayout) -> Result<NodeComponent> {
    let dir = format!("--data-dir={}", layout.data_dir().join("etcd").display());
    new_component(
        layout,
        "etcd",
        vec![
            dir,
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            // The data is removed with the cluster, so it need not be durable.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ],
    )
}

/// The apiserver, with the aggregation layer that metrics-server needs.
pub fn new_apiserver(layout: &ClusterLayout, options: UpOptions) -> Result<NodeComponent> {
    let pki = |name: &str| layout.pki_dir().join(name).display().to_string();
    let families = layout.families();
    let mut arguments = vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!(
            "--advertise-address={}",
            families.first_address(layout.node_ip(), families::NODE_IP)
        ),
        format!(
            "--bind-address={}",
            families.first_address(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
        ),
        format!(
            "--service-cluster-ip-range={}",
            families.join_addresses(layout::SERVICE_CIDR, families::SERVICE_CIDR)
        ),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", pki("service-account.pub")),
        format!("--service-account-signing-key-file={}", pki("service-account.key")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet-client.key")),
        // Names of nodes do not resolve here; without this `kubectl logs` and `exec` fail.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
        "--enable-aggregator-routing=true".into(),
        "--profiling=false".into(),
    ];
    if options.audit {
        arguments.push(format!(
            "--audit-policy-file={}",
            layout.config_dir().join("audit.json").display()
        ));
        arguments.push(format!("--audit-log-path={}", layout.audit_log().display()));
    }
    new_component(layout, "kube-apiserver", arguments)
}

/// The controllers. Leader election is off: there is one of each, and a lease would only delay the
/// start.
pub fn new_controller_manager(layout: &ClusterLayout) -> Result<NodeComponent> {
    let pki = |name: &str| layout.pki_dir().join(name).display().to_string();
    let families = layout.families();
    let mut arguments = client_flags(layout, "controller-manager");
    arguments.extend([
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        format!("--service-account-private-key-file={}", pki("service-account.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--allocate-node-cidrs=true".into(),
        format!("--cluster-cidr={}", families.join_addresses(layout::POD_CIDR, families::POD_CIDR)),
        format!("--node-cidr-mask-size{}=24", if families.has_ipv6() { "-ipv4" } else { "" }),
        // With the default of 20 requests per second, starting some forty controllers takes four
        // seconds.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        // Autoscaling in seconds instead of minutes, so that a test of it can be run often.
        "--horizontal-pod-autoscaler-sync-period=5s".into(),
        "--horizontal-pod-autoscaler-cpu-initialization-period=20s".into(),
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s".into(),
    ]);
    new_component(layout, "kube-controller-manager", arguments)
}

pub fn new_scheduler(layout: &ClusterLayout) -> Result<NodeComponent> {
    let mut arguments = client_flags(layout, "scheduler");
    arguments.push("--leader-elect=false".into());
    new_component(layout, "kube-scheduler", arguments)
}

pub fn new_containerd(layout: &ClusterLayout) -> Result<NodeComponent> {
    let config = layout.config_dir().join("containerd.toml");
    let component =
        new_component(layout, "containerd", vec!["--config".into(), config.display().to_string()])?;
    Ok(NodeComponent { node_mounts: true, ..component })
}

pub fn new_kubelet(layout: &ClusterLayout) -> Result<NodeComponent> {
    let component = new_component(
        layout,
        "kubelet",
        vec![
            format!("--config={}", layout.config_dir().join("kubelet.json").display()),
            format!("--kubeconfig={}", pki::kubeconfig_path(layout, "kubelet").display()),
            format!("--hostname-override={}", layout.node_name()),
            format!(
                "--node-ip={}",
                layout.families().join_addresses(layout.node_ip(), families::NODE_IP)
            ),
        ],
    )?;
    Ok(NodeComponent { node_mounts: true, ..component })
}

/// Service addresses, by nftables.
pub fn new_kube_proxy(layout: &ClusterLayout) -> Result<NodeComponent> {
    new_component(
        layout,
        "kube-proxy",
        vec![
            format!("--kubeconfig={}", pki::kubeconfig_path(layout, "kube-proxy").display()),
            "--proxy-mode=nftables".into(),
            format!(
                "--cluster-cidr={}",
                layout.families().join_addresses(layout::POD_CIDR, families::POD_CIDR)
            ),
            format!("--hostname-override={}", layout.node_name()),
            // The table of connections belongs to the host's kernel, whose limits a namespace may
            // not set.
            "--conntrack-max-per-core=0".into(),
            "--conntrack-min=0".into(),
            "--conntrack-tcp-timeout-established=0".into(),
            "--conntrack-tcp-timeout-close-wait=0".into(),
        ],
    )
}

/// Resolves names of Services.
pub fn new_coredns(layout: &ClusterLayout) -> Result<NodeComponent> {
    new_component(
        layout,
        "coredns",
        vec!["-conf".into(), layout.config_dir().join("Corefile").display().to_string()],
    )
}

/// CPU and memory of pods, for `kubectl top` and autoscaling.
pub fn new_metrics_server(layout: &ClusterLayout) -> Result<NodeComponent> {
    let mut arguments = client_flags(layout, "admin");
    arguments.extend([
        format!("--secure-port={METRICS_PORT}"),
        format!("--cert-dir={}", layout.data_dir().join("metrics-server").display()),
        "--kubelet-insecure-tls".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--metric-resolution=10s".into(),
        // Must be below the resolution.
        "--kubelet-request-timeout=5s".into(),
    ]);
    new_component(layout, "metrics-server", arguments)
}

/// Port of metrics-server on the node.
pub const METRICS_PORT: u16 = 4443;

/// Prometheus, with the discovery of pods that its users have.
pub fn new_prometheus(layout: &ClusterLayout) -> Result<NodeComponent> {
    new_component(
        layout,
        "prometheus",
        vec![
            format!("--config.file={}", layout.config_dir().join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", layout.data_dir().join("prometheus").display()),
            "--storage.tsdb.retention.time=6h".into(),
            format!("--web.listen-address={}:9090", layout.node_ip()),
            "--log.level=warn".into(),
        ],
    )
}

/// Metrics of Prometheus for autoscaling, by the rule that the documentation recommends to users.
pub fn new_prometheus_adapter(layout: &ClusterLayout) -> Result<NodeComponent> {
    let kubeconfig = pki::kubeconfig_path(layout, "admin");
    let mut arguments: Vec<String> = ["lister", "authentication", "authorization"]
        .iter()
        .map(|name| format!("--{name}-kubeconfig={}", kubeconfig.display()))
        .collect();
    arguments.extend([
        format!("--secure-port={EXTERNAL_METRICS_PORT}"),
        format!("--cert-dir={}", layout.data_dir().join("prometheus-adapter").display()),
        format!("--prometheus-url={}", layout.prometheus_url()),
        format!("--config={}", layout.root().join(ADAPTER_RULES).display()),
        // Delay until a metric that is new in Prometheus is served.
        "--metrics-relist-interval=5s".into(),
        "--metrics-max-age=1m".into(),
    ]);
    new_component(layout, "prometheus-adapter", arguments)
}

/// Port of prometheus-adapter on the node.
pub const EXTERNAL_METRICS_PORT: u16 = 6444;
/// The rules of prometheus-adapter, relative to the root of the workspace.
pub const ADAPTER_RULES: &str = "examples/prometheus-adapter.yaml";

/// How the readiness of a component is checked.
pub fn readiness_probe(component: &str) -> ReadinessProbe {
    match component {
        "kube-apiserver" => ReadinessProbe::Api("/readyz"),
        "kube-proxy" => ReadinessProbe::Http(10256, "/healthz"),
        "coredns" => ReadinessProbe::Http(8181, "/ready"),
        "prometheus" => ReadinessProbe::Http(9090, "/-/ready"),
        _ => ReadinessProbe::None,
    }
}

fn client_flags(layout: &ClusterLayout, client: &str) -> Vec<String> {
    let kubeconfig = pki::kubeconfig_path(layout, client);
    let flag = |name: &str| format!("--{name}={}", kubeconfig.display());
    vec![flag("kubeconfig"), flag("authentication-kubeconfig"), flag("authorization-kubeconfig")]
}

fn new_component(
    layout: &ClusterLayout,
    name: &'static str,
    arguments: Vec<String>,
) -> Result<NodeComponent> {
    Ok(NodeComponent { name, program: layout.ensure_program(name)?, arguments, node_mounts: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_shows_the_rules_that_the_adapter_runs_with() {
        let read =
            |path: &str| std::fs::read_to_string(layout::workspace_root().join(path)).unwrap();
        let rules = read(ADAPTER_RULES);
        let rules = &rules[rules.find("externalRules:").unwrap()..];
        assert!(
            read("docs/queue.md").contains(rules),
            "docs/queue.md does not show {ADAPTER_RULES}"
        );
    }
}
