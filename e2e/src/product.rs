//! Slipway on a cluster: installed and uninstalled by helm, from the charts, as a user does it.

use std::time::Duration;

use serde_json::Value;
use slipway_cluster::cluster::ClusterHandle;
use slipway_cluster::error::{HarnessError, Result};

/// Namespace of the operator.
pub const NAMESPACE: &str = "slipway-system";
/// Name of the release, and so of the operator's Deployment.
pub const RELEASE: &str = "slipway";
/// Selector of the operator's pods.
pub const OPERATOR_SELECTOR: &str = "app.kubernetes.io/name=slipway-operator";

const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Keys of a Secret in the operator's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusLogin {
    /// Name of the Secret.
    pub secret: String,
    /// Its key with the user.
    pub user: String,
    /// Its key with the password.
    pub password: String,
    /// Its key with the certificate of the CA.
    pub authority: String,
}

/// The Prometheus that Slipway queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrometheusSource {
    /// An existing one, at this URL as pods reach it.
    Url(String),
    /// An existing one that requires a login.
    Login(String, PrometheusLogin),
    /// The small one of the chart, from the published image.
    Chart,
    /// The small one of the chart, from the image that `slipway-e2e images` built.
    BuiltChart,
}

impl PrometheusSource {
    /// The values of the chart.
    fn chart_values(&self) -> Vec<String> {
        let values: &[&str] = match self {
            Self::Url(url) => return vec![format!("prometheus.url={url}")],
            Self::Login(url, login) => {
                let of = |key: &str, value: &str| format!("prometheus.login.{key}={}", value);
                return vec![
                    format!("prometheus.url={url}"),
                    of("secretName", &login.secret),
                    of("usernameKey", &login.user),
                    of("passwordKey", &login.password),
                    of("caKey", &login.authority),
                ];
            }
            // Scraped at the interval at which the examples' gates are evaluated.
            Self::Chart => &["prometheus.install=true", "prometheus.scrapeInterval=1s"],
            Self::BuiltChart => &[
                "prometheus.install=true",
                "prometheus.scrapeInterval=1s",
                "prometheus.image.repository=docker.io/slipway/slipway-prometheus",
                "prometheus.image.tag=dev",
            ],
        };
        values.iter().map(|value| (*value).to_owned()).collect()
    }
}

/// Installs or upgrades both charts, with the images that `slipway-e2e images` built, and waits
/// until all pods are ready.
pub async fn install_charts(cluster: &ClusterHandle, prometheus: &PrometheusSource) -> Result<()> {
    install_with_values(cluster, prometheus, &serde_json::json!({})).await
}

/// The same with further values of the chart.
pub async fn install_with_values(
    cluster: &ClusterHandle,
    prometheus: &PrometheusSource,
    more: &Value,
) -> Result<()> {
    let charts = cluster.layout().root().join("charts");
    let chart = |name: &str| charts.join(name).display().to_string();
    let timeout = format!("{}s", READY_TIMEOUT.as_secs());
    let base = [
        "upgrade",
        "--install",
        "--create-namespace",
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        &timeout,
    ];
    let crds = chart("slipway-crds");
    cluster.helm([&base[..], &["slipway-crds", &crds]].concat()).await?;
    let image = |part: &str| {
        [
            format!("{part}.image.repository=docker.io/slipway/slipway-{part}"),
            format!("{part}.image.tag=dev"),
        ]
    };
    let images = ["operator", "gateway", "runtime", "redis"].into_iter().flat_map(image);
    let values: Vec<String> = prometheus.chart_values().into_iter().chain(images).collect();
    let release = chart(RELEASE);
    let mut arguments: Vec<&str> = [&base[..], &[RELEASE, &release]].concat();
    for value in &values {
        arguments.extend(["--set", value]);
    }
    let file =
        cluster.layout().root().join(format!("target/e2e/values-{}.yaml", std::process::id()));
    std::fs::write(&file, more.to_string()).map_err(HarnessError::io("write", &file))?;
    let path = file.display().to_string();
    arguments.extend(["--values", &path]);
    let done = cluster.helm(&arguments).await.map(drop);
    let _ = std::fs::remove_file(&file);
    done
}

/// Installs, or upgrades, another release for one namespace: with the values of the first release,
/// modified by `change`.
pub async fn install_scoped_release(
    cluster: &ClusterHandle,
    release: &str,
    namespace: &str,
    change: impl FnOnce(&mut Value),
) -> Result<()> {
    let values = cluster
        .helm(["get", "values", RELEASE, "--namespace", NAMESPACE, "--output", "json"])
        .await?;
    let mut values: Value = serde_json::from_str(&values).map_err(|error| {
        HarnessError::Other(format!("values of the release {RELEASE}: {error}"))
    })?;
    values["watchNamespace"] = namespace.into();
    // Objects that exist once per cluster.
    values["gateway"]["clusterRole"]["create"] = false.into();
    values["commands"]["policy"] = false.into();
    change(&mut values);
    let file = cluster.layout().root().join(format!("target/e2e/{release}.json"));
    std::fs::write(&file, values.to_string()).map_err(HarnessError::io("write", &file))?;
    let chart = cluster.layout().root().join("charts").join(RELEASE).display().to_string();
    let (path, timeout) = (file.display().to_string(), format!("{}s", READY_TIMEOUT.as_secs()));
    let install =
        ["upgrade", "--install", release, &chart, "--namespace", release, "--values", &path];
    let done =
        cluster.helm([&install[..], &["--wait", "--timeout", &timeout]].concat()).await.map(drop);
    // helm's answer matters more than a left-over file.
    let _ = std::fs::remove_file(&file);
    done
}

/// Uninstalls such a release.
pub async fn uninstall_scoped_release(cluster: &ClusterHandle, release: &str) -> Result<()> {
    let timeout = format!("{}s", READY_TIMEOUT.as_secs());
    cluster
        .helm(["uninstall", release, "--namespace", release, "--wait", "--timeout", &timeout])
        .await
        .map(drop)
}

/// Uninstalls both charts: first the operator, then the definitions with all remaining objects.
pub async fn uninstall_charts(cluster: &ClusterHandle) -> Result<()> {
    let timeout = format!("{}s", READY_TIMEOUT.as_secs());
    for release in [RELEASE, "slipway-crds"] {
        cluster
            .helm(["uninstall", release, "--namespace", NAMESPACE, "--wait", "--timeout", &timeout])
            .await?;
    }
    Ok(())
}

/// Sets the number of operator pods; returns when that many are ready, or none is left.
pub async fn scale_operator(cluster: &ClusterHandle, replicas: u32) -> Result<()> {
    let deployment = format!("deployment/{RELEASE}");
    let count = format!("--replicas={replicas}");
    cluster.kubectl(["scale", "-n", NAMESPACE, &deployment, &count]).await?;
    cluster
        .wait_for(NAMESPACE, "the operator to have its replicas", READY_TIMEOUT, || async {
            let pods = cluster
                .kubectl(["get", "pods", "-n", NAMESPACE, "-l", OPERATOR_SELECTOR, "-o", "name"])
                .await
                .map_err(|error| error.to_string())?;
            let here = pods.lines().count();
            if here != replicas as usize {
                return Err(format!("{here} pods instead of {replicas}"));
            }
            if replicas == 0 {
                return Ok(());
            }
            cluster
                .kubectl(["rollout", "status", "-n", NAMESPACE, &deployment, "--timeout=2s"])
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await
}
