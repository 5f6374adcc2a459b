//! The components of a node and their command lines.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::Result;
use crate::families;
use crate::layout::{self, Layout};
use crate::node::pki;
use crate::process::Component;

/// How a component shows that it is ready.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// `GET` of this path on this port of the node answers 200.
    Http(u16, &'static str),
    /// The same over TLS, asked for as the administrator.
    Api(&'static str),
    /// Another component's probe covers it.
    None,
}

/// What `up` was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether the apiserver writes an audit log.
    pub audit: bool,
    /// Whether what only the promises need is there as well: Prometheus and metrics-server, and the program of prometheus-adapter. The demo has the
    /// Prometheus of the chart, and no autoscaling by CPU.
    pub all: bool,
}

/// The key-value store.
pub fn etcd(layout: &Layout) -> Result<Component> {
    let dir = format!("--data-dir={}", layout.data().join("etcd").display());
    component(
        layout,
        "etcd",
        vec![
            dir,
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            // The data dies with the cluster, so waiting for the disk buys nothing.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ],
    )
}

/// The apiserver, with the aggregation layer that metrics-server needs.
pub fn apiserver(layout: &Layout, options: Options) -> Result<Component> {
    let pki = |name: &str| layout.pki().join(name).display().to_string();
    let families = layout.families();
    let mut arguments = vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--advertise-address={}", families.first(layout.node_ip(), families::NODE_IP)),
        format!("--bind-address={}", families.first(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)),
        format!("--service-cluster-ip-range={}", families.list(layout::SERVICE_CIDR, families::SERVICE_CIDR)),
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
        arguments.push(format!("--audit-policy-file={}", layout.etc().join("audit.json").display()));
        arguments.push(format!("--audit-log-path={}", layout.audit_log().display()));
    }
    component(layout, "kube-apiserver", arguments)
}

/// The controllers. Leader election is off: there is one of each, and a lease would only delay the start.
pub fn controller_manager(layout: &Layout) -> Result<Component> {
    let pki = |name: &str| layout.pki().join(name).display().to_string();
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
        format!("--cluster-cidr={}", families.list(layout::POD_CIDR, families::POD_CIDR)),
        format!("--node-cidr-mask-size{}=24", if families.has_ipv6() { "-ipv4" } else { "" }),
        // The default of 20 requests a second makes the start of some forty controllers take four seconds.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        // Autoscaling in seconds instead of minutes, so that a test of it can be run often.
        "--horizontal-pod-autoscaler-sync-period=5s".into(),
        "--horizontal-pod-autoscaler-cpu-initialization-period=20s".into(),
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s".into(),
    ]);
    component(layout, "kube-controller-manager", arguments)
}

/// The scheduler.
pub fn scheduler(layout: &Layout) -> Result<Component> {
    let mut arguments = client_flags(layout, "scheduler");
    arguments.push("--leader-elect=false".into());
    component(layout, "kube-scheduler", arguments)
}

/// The container runtime.
pub fn containerd(layout: &Layout) -> Result<Component> {
    let config = layout.etc().join("containerd.toml");
    let component = component(layout, "containerd", vec!["--config".into(), config.display().to_string()])?;
    Ok(Component { node_mounts: true, ..component })
}

/// The kubelet.
pub fn kubelet(layout: &Layout) -> Result<Component> {
    let component = component(
        layout,
        "kubelet",
        vec![
            format!("--config={}", layout.etc().join("kubelet.json").display()),
            format!("--kubeconfig={}", pki::kubeconfig(layout, "kubelet").display()),
            format!("--hostname-override={}", layout.node_name()),
            format!("--node-ip={}", layout.families().list(layout.node_ip(), families::NODE_IP)),
        ],
    )?;
    Ok(Component { node_mounts: true, ..component })
}

/// Service addresses, by nftables.
pub fn proxy(layout: &Layout) -> Result<Component> {
    component(
        layout,
        "kube-proxy",
        vec![
            format!("--kubeconfig={}", pki::kubeconfig(layout, "kube-proxy").display()),
            "--proxy-mode=nftables".into(),
            format!("--cluster-cidr={}", layout.families().list(layout::POD_CIDR, families::POD_CIDR)),
            format!("--hostname-override={}", layout.node_name()),
            // The table of connections belongs to the host's kernel, whose limits a namespace may not set.
            "--conntrack-max-per-core=0".into(),
            "--conntrack-min=0".into(),
            "--conntrack-tcp-timeout-established=0".into(),
            "--conntrack-tcp-timeout-close-wait=0".into(),
        ],
    )
}

/// Names of Services.
pub fn coredns(layout: &Layout) -> Result<Component> {
    component(layout, "coredns", vec!["-conf".into(), layout.etc().join("Corefile").display().to_string()])
}

/// CPU and memory of pods, for `kubectl top` and autoscaling.
pub fn metrics_server(layout: &Layout) -> Result<Component> {
    let mut arguments = client_flags(layout, "admin");
    arguments.extend([
        format!("--secure-port={METRICS_PORT}"),
        format!("--cert-dir={}", layout.data().join("metrics-server").display()),
        "--kubelet-insecure-tls".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--metric-resolution=10s".into(),
        // Must be below the resolution.
        "--kubelet-request-timeout=5s".into(),
    ]);
    component(layout, "metrics-server", arguments)
}

/// Port of metrics-server on the node.
pub const METRICS_PORT: u16 = 4443;

/// Prometheus, with the discovery of pods that its users have.
pub fn prometheus(layout: &Layout) -> Result<Component> {
    component(
        layout,
        "prometheus",
        vec![
            format!("--config.file={}", layout.etc().join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", layout.data().join("prometheus").display()),
            "--storage.tsdb.retention.time=6h".into(),
            format!("--web.listen-address={}:9090", layout.node_ip()),
            "--log.level=warn".into(),
        ],
    )
}

/// Metrics of Prometheus for autoscaling, by the rule that users are told of.
pub fn prometheus_adapter(layout: &Layout) -> Result<Component> {
    let kubeconfig = pki::kubeconfig(layout, "admin");
    let mut arguments: Vec<String> = ["lister", "authentication", "authorization"]
        .iter()
        .map(|name| format!("--{name}-kubeconfig={}", kubeconfig.display()))
        .collect();
    arguments.extend([
        format!("--secure-port={EXTERNAL_METRICS_PORT}"),
        format!("--cert-dir={}", layout.data().join("prometheus-adapter").display()),
        format!("--prometheus-url={}", layout.prometheus_url()),
        format!("--config={}", layout.root().join(ADAPTER_RULES).display()),
        // How soon a metric that is new in Prometheus is served.
        "--metrics-relist-interval=5s".into(),
        "--metrics-max-age=1m".into(),
    ]);
    component(layout, "prometheus-adapter", arguments)
}

/// Port of prometheus-adapter on the node.
pub const EXTERNAL_METRICS_PORT: u16 = 6444;
/// The rules of prometheus-adapter, below the root of the workspace.
pub const ADAPTER_RULES: &str = "examples/prometheus-adapter.yaml";

/// How to see that a component is ready.
pub fn probe(component: &str) -> Probe {
    match component {
        "kube-apiserver" => Probe::Api("/readyz"),
        "kube-proxy" => Probe::Http(10256, "/healthz"),
        "coredns" => Probe::Http(8181, "/ready"),
        "prometheus" => Probe::Http(9090, "/-/ready"),
        _ => Probe::None,
    }
}

fn client_flags(layout: &Layout, client: &str) -> Vec<String> {
    let kubeconfig = pki::kubeconfig(layout, client);
    let flag = |name: &str| format!("--{name}={}", kubeconfig.display());
    vec![flag("kubeconfig"), flag("authentication-kubeconfig"), flag("authorization-kubeconfig")]
}

fn component(layout: &Layout, name: &'static str, arguments: Vec<String>) -> Result<Component> {
    Ok(Component { name, program: layout.ensure_program(name)?, arguments, node_mounts: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_shows_the_rules_that_the_adapter_runs_with() {
        let read = |path: &str| std::fs::read_to_string(layout::workspace_root().join(path)).unwrap();
        let rules = read(ADAPTER_RULES);
        let rules = &rules[rules.find("externalRules:").unwrap()..];
        assert!(read("docs/queue.md").contains(rules), "docs/queue.md does not show {ADAPTER_RULES}");
    }
}
