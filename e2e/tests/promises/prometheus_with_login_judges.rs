//! A real Prometheus that requires TLS with a private CA and a password: rollouts are judged by its
//! data, a renewed password is used without a restart, and a wrong one holds the rollout and is
//! reported.

use std::time::Duration;

use anyhow::{Context, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_e2e::product::{self, NAMESPACE, PrometheusLogin, PrometheusSource};
use slipway_e2e::world::{self, TestWorld};

const NAME: &str = "login-prometheus";
const PASSWORD: &str = "open-sesame";
/// The bcrypt hash of the password in Prometheus' configuration.
const HASH: &str = "$2b$06$KSJ6ORu9xktai8SMp/iWjuMzIwccEPU5kINmC80b.SA3fipd.ic/W";
/// Kubelets update a Secret in a pod within a minute or two.
const RENEWED: Duration = Duration::from_secs(180);

/// A CA, and a certificate and key that it issued for the Service.
fn certificates(namespace: &str) -> anyhow::Result<[String; 3]> {
    let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key)?;
    let leaf = CertificateParams::new(vec![format!("{NAME}.{namespace}.svc")])?;
    let leaf = leaf.signed_by(&key, &Issuer::new(authority, authority_key))?;
    Ok([root.pem(), leaf.pem(), key.serialize_pem()])
}

/// A Prometheus with a login, for the pods of the namespace.
async fn prometheus(world: &TestWorld, [_, certificate, key]: &[String; 3]) -> anyhow::Result<()> {
    let namespace = &world.namespace;
    let relabel = |from: &[&str], regex: &str, replacement: &str, to: &str| json!({"source_labels": from, "regex": regex, "replacement": replacement, "target_label": to});
    let meta = "__meta_kubernetes_pod_annotation_prometheus_io";
    let address = |regex: &str, replacement: &str| {
        relabel(
            &["__meta_kubernetes_pod_ip", &format!("{meta}_port")],
            regex,
            replacement,
            "__address__",
        )
    };
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{
            "job_name": "slipway",
            "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [namespace]}}],
            "relabel_configs": [
                {"source_labels": [format!("{meta}_scrape")], "action": "keep", "regex": "true"},
                address(r"([^;:]+);(\d+)", "$1:$2"),
                address(r"([^;]*:[^;]*);(\d+)", "[$1]:$2"),
                relabel(&["__meta_kubernetes_namespace"], "(.*)", "$1", "namespace"),
                relabel(&["__meta_kubernetes_pod_name"], "(.*)", "$1", "pod"),
            ],
        }],
    });
    let web = json!({
        "tls_server_config": {"cert_file": "/etc/login/tls.crt", "key_file": "/etc/login/tls.key"},
        "basic_auth_users": {"slipway": HASH},
    });
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let labels = json!({"app": NAME});
    let metadata = json!({"name": NAME, "namespace": namespace});
    let objects = json!([
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
         "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
         "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {
            "prometheus.yml": config.to_string(), "web.yml": web.to_string(), "tls.crt": certificate, "tls.key": key}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
         "spec": {"selector": labels, "ports": [{"port": 9090}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": NAME,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "fsGroup": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    "name": "prometheus", "image": "docker.io/slipway/slipway-prometheus:dev",
                    "args": ["--config.file=/etc/login/prometheus.yml", "--web.config.file=/etc/login/web.yml", "--storage.tsdb.path=/prometheus"],
                    "readinessProbe": {"tcpSocket": {"port": 9090}},
                    "volumeMounts": [mount("login", "/etc/login"), mount("data", "/prometheus")],
                }],
                "volumes": [{"name": "login", "secret": {"secretName": NAME}}, {"name": "data", "emptyDir": {}}],
            }},
        }},
    ]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    world.cluster.apply(namespace, &list.to_string()).await?;
    world.wait_deployment_ready(NAME).await
}

/// The Secret in the operator's namespace.
async fn secret(world: &TestWorld, authority: &str, password: &str) -> anyhow::Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "stringData": {"user": "slipway", "password": password, "ca.crt": authority},
    });
    world.cluster.apply(NAMESPACE, &secret.to_string()).await.map(drop)?;
    Ok(())
}

async fn judged(world: &TestWorld, certificates: &[String; 3]) -> anyhow::Result<()> {
    prometheus(world, certificates).await?;
    let [authority, _, _] = certificates;
    secret(world, authority, "wrong").await?;
    let url = format!("https://{NAME}.{}.svc:9090", world.namespace);
    let login = PrometheusLogin {
        secret: NAME.into(),
        user: "user".into(),
        password: "password".into(),
        authority: "ca.crt".into(),
    };
    product::install_charts(&world.cluster, &PrometheusSource::Login(url, login)).await?;

    world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
    world.start_load("digits", 120).await?;
    world.apply(&world.quick_example("digits/v2.yaml")?).await?;
    let held = |status: &ModelDeploymentStatus| match world::find_condition(status, "GatePassed") {
        Some(("Unknown", "ProviderDown")) if status.message.contains("401") => Ok(()),
        _ => Err(world::describe_status(status)),
    };
    world
        .wait_for_status(
            "digits",
            "a wrong password to hold the rollout",
            world::ROLLOUT_TIMEOUT,
            held,
        )
        .await?;

    secret(world, authority, PASSWORD).await?;
    let used = |status: &ModelDeploymentStatus| match world::find_condition(status, "GatePassed") {
        Some((_, "ProviderDown")) => Err(world::describe_status(status)),
        _ => Ok(()),
    };
    world.wait_for_status("digits", "the renewed password to be used", RENEWED, used).await?;
    let status = world.wait_promoted("digits", "v2").await?;
    let record = status.history.first().context("no history")?;
    let (_, judged) = record.steps.split_last().context("no steps")?;
    ensure!(
        !judged.is_empty() && judged.iter().all(|step| step.verdict.contains("errors")),
        "{record:?}"
    );
    world.finish_load().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn prometheus_with_login_judges() -> anyhow::Result<()> {
    world::run_promise_alone("login", async |world| {
        if world.cluster.is_foreign() {
            eprintln!("skipped: its image is built for a cluster of ours");
            return Ok(());
        }
        let outcome = judged(&world, &certificates(&world.namespace)?).await;
        product::install_charts(
            &world.cluster,
            &PrometheusSource::Url(world.cluster.prometheus_url()?),
        )
        .await?;
        world
            .cluster
            .kubectl(["delete", "secret", NAME, "-n", NAMESPACE, "--ignore-not-found"])
            .await?;
        outcome
    })
    .await
}
