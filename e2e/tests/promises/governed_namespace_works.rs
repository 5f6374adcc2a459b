//! A namespace with policies: every pod needs limits and a label with its cost centre, user ids are
//! assigned by the platform, and there is a quota. Gateways, model servers, the step that fetches
//! the model and a Redis all comply, and a rollout succeeds.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use slipway_e2e::product::{self, PrometheusSource};
use slipway_e2e::world::{self, TestWorld};

/// The range of ids that the platform assigns to the namespace.
const FIRST_ID: i64 = 1_000_650_000;
const LAST_ID: i64 = 1_000_659_999;

/// The policies, for the namespace only: ids are assigned, and ids out of the range are rejected;
/// pods without limits or the label are rejected.
fn rules(namespace: &str) -> Value {
    let name = format!("governed-{namespace}");
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let pods = |operations: &[&str]| {
        json!({
            "namespaceSelector": here,
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": operations}],
        })
    };
    let ids = format!(
        "!has(object.spec.securityContext.runAsUser) || (object.spec.securityContext.runAsUser >= {FIRST_ID} && object.spec.securityContext.runAsUser <= {LAST_ID})"
    );
    let limits = "(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])).all(c, has(c.resources) && has(c.resources.limits) && 'memory' in c.resources.limits && 'cpu' in c.resources.limits)";
    let label = "has(object.metadata.labels) && 'cost-centre' in object.metadata.labels";
    let exempt = "!object.metadata.name.startsWith('model-store') && !object.metadata.name.startsWith('loadgen')";
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
         "spec": {"matchConstraints": pods(&["CREATE"]),
                  "matchConditions": [{"name": "ours", "expression": exempt.replace("object.metadata.name", "(has(object.metadata.name) ? object.metadata.name : object.metadata.generateName)")}],
                  "validations": [
            {"expression": ids, "message": "runAsUser is not of the namespace's range"},
            {"expression": limits, "message": "every container has limits"},
            {"expression": label, "message": "every pod has a cost-centre"},
         ]}},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
         "spec": {"policyName": name, "validationActions": ["Deny"]}},
    ]})
}

/// A version that complies with the policies.
fn governed(world: &TestWorld, file: &str) -> anyhow::Result<String> {
    let mut object = serde_json::to_value(world.quick_example(file)?)?;
    object["spec"]["template"] = json!({
        "metadata": {"labels": {"cost-centre": "ml"}},
        "spec": {
            // Set in the same way as OpenShift's admission does for a namespace.
            "securityContext": {"runAsUser": FIRST_ID, "runAsGroup": 0, "fsGroup": FIRST_ID},
            "containers": [{"name": "server", "resources": {
                "requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}}],
        },
    });
    object["spec"]["server"]["cache"] = json!({"results": {}, "sidecar": {"maxMemory": "16Mi", "resources": {"limits": {"cpu": "200m"}}}});
    Ok(object.to_string())
}

async fn through(world: &TestWorld) -> anyhow::Result<()> {
    let quota = [
        "create",
        "quota",
        "governed",
        "-n",
        &world.namespace,
        "--hard=limits.cpu=16,limits.memory=16Gi,pods=30",
    ];
    let label = json!({"metadata": {"labels": {"cost-centre": "ml"}}});
    let spec = json!({"containers": [{"name": "gateway", "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}}}],
                      "securityContext": {"runAsUser": FIRST_ID}});
    let values = json!({"pods": {"userIds": "Platform"}, "gateway": {"template": {"metadata": label["metadata"], "spec": spec}}});
    let url = world.cluster.prometheus_url()?;
    product::install_with_values(&world.cluster, &PrometheusSource::Url(url), &values).await?;
    world.cluster.apply(&world.namespace, &rules(&world.namespace).to_string()).await?;
    world.cluster.kubectl(quota).await?;

    world.cluster.apply(&world.namespace, &governed(world, "digits/v1.yaml")?).await?;
    world
        .wait_for_status(
            "digits",
            "the first version to be ready",
            world::PODS_TIMEOUT,
            world::check_ready,
        )
        .await?;
    world.start_load("digits", 60).await?;
    world.cluster.apply(&world.namespace, &governed(world, "digits/v2.yaml")?).await?;
    world.wait_promoted("digits", "v2").await?;
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), &world.namespace);
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=slipway");
    for pod in pods.list(&ours).await? {
        let (name, spec) =
            (pod.metadata.name.unwrap_or_default(), pod.spec.context("a pod without a spec")?);
        let user = spec.security_context.and_then(|it| it.run_as_user);
        ensure!(
            user.is_some_and(|user| (FIRST_ID..=LAST_ID).contains(&user)),
            "{name} runs as {user:?}"
        );
    }
    let account = world.finish_load().await?;
    ensure!(account.failed == 0, "{account:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn governed_namespace_works() -> anyhow::Result<()> {
    world::run_promise_alone("governed", async |world| {
        let outcome = through(&world).await;
        product::install_charts(
            &world.cluster,
            &PrometheusSource::Url(world.cluster.prometheus_url()?),
        )
        .await?;
        let name = format!("governed-{}", world.namespace);
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            world.cluster.kubectl(["delete", kind, &name, "--ignore-not-found"]).await?;
        }
        outcome
    })
    .await
}
