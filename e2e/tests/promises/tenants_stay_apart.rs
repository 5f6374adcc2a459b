//! A tenant's access ends at the namespace: the query of a gate returns no series of other
//! namespaces, and the operator's own token gives no access to the whole cluster.

use anyhow::{Context, ensure};
use serde_json::json;
use slipway_crds::v1alpha1::{AnalysisMode, GateSpec, ModelDeployment, ModelDeploymentStatus};
use slipway_e2e::product::NAMESPACE;
use slipway_e2e::world::{self, TestWorld};

const TOKEN: &str = "--as=system:serviceaccount:slipway-system:slipway";

/// A version whose only gate is a query.
fn asking(world: &TestWorld, query: &str) -> anyhow::Result<ModelDeployment> {
    let mut object = world.quick_example("digits/v2.yaml")?;
    object.spec.model.version = Some(format!("v{:x}", query.len()));
    let gate = json!({"name": "spy", "type": "PromQL", "promQL": {"query": query, "min": 0, "initialDelaySeconds": 0, "consecutiveCount": 1}});
    let gate: GateSpec = serde_json::from_value(gate)?;
    (object.spec.analysis.mode, object.spec.analysis.gates) =
        (AnalysisMode::Custom, Some(vec![gate]));
    Ok(object)
}

async fn refused(world: &TestWorld, arguments: &[&str], words: &str) -> anyhow::Result<()> {
    let all = [arguments, &[TOKEN]].concat();
    let told = world
        .cluster
        .kubectl(&all)
        .await
        .err()
        .with_context(|| format!("{arguments:?} was done"))?
        .to_string();
    ensure!(told.contains(words), "{arguments:?}: {told}");
    Ok(())
}

async fn refused_manifest(
    world: &TestWorld,
    manifest: &serde_json::Value,
    words: &str,
) -> anyhow::Result<()> {
    let file = world
        .cluster
        .layout()
        .root()
        .join(format!("target/e2e/refused-{}.json", std::process::id()));
    std::fs::write(&file, manifest.to_string())?;
    let path = file.display().to_string();
    let done = refused(world, &["create", "-f", &path], words).await;
    std::fs::remove_file(&file)?;
    done
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn tenants_stay_apart() -> anyhow::Result<()> {
    world::run_promise("tenants", async |world| {
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 40).await?;
        let everywhere =
            world.query_prometheus("count(slipway_operator_api_requests_total)").await?.unwrap_or_default();
        ensure!(everywhere > 0.0, "Prometheus has no series of the operator");

        // Series of another namespace, queried in several ways.
        let spy = r#"count(slipway_operator_api_requests_total{namespace=~".*"}) + 0 * count(up{x!="{{candidate}}"})"#;
        world.apply(&asking(&world, spy)?).await?;
        let nothing = |status: &ModelDeploymentStatus| match status.gates.first() {
            Some(gate) if gate.message.contains("no series") && gate.candidate.is_empty() => Ok(()),
            _ => Err(world::describe_status(status)),
        };
        world.wait_for_status("digits", "the query to see nothing", world::ROLLOUT_TIMEOUT, nothing).await?;
        // Its own series: judged and promoted.
        let own = r#"count(slipway_gateway_requests_total{revision="{{candidate}}"})"#;
        let object = asking(&world, own)?;
        let version = object.spec.model.version.clone().unwrap_or_default();
        world.apply(&object).await?;
        world.wait_promoted("digits", &version).await?;

        // The operator's token.
        let namespace = world.namespace.clone();
        let image = "--image=docker.io/slipway/slipway-model-store:dev";
        refused(&world, &["create", "deployment", "mine", image, "-n", &namespace], "carry the label").await?;
        let admin = ["create", "rolebinding", "mine", "--clusterrole=cluster-admin", "--user=eve", "-n", &namespace];
        refused(&world, &admin, "not currently held").await?;
        refused(&world, &["get", "secret", "slipway-keys", "-n", &namespace], "cannot get resource").await?;
        let labels = json!({"app.kubernetes.io/managed-by": "slipway"});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": namespace, "labels": labels}
        });
        refused_manifest(&world, &secret, "makes the Secret slipway-keys and no other").await?;
        let labelled = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "mine", "namespace": NAMESPACE, "labels": labels},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "slipway-gateway"},
            "subjects": [],
        });
        for (place, role, words) in [
            (namespace.as_str(), "cluster-admin", "not currently held"),
            ("kube-system", "slipway-gateway", "writes nothing in this namespace"),
        ] {
            let mut binding = labelled.clone();
            binding["metadata"]["namespace"] = place.into();
            binding["roleRef"]["name"] = role.into();
            refused_manifest(&world, &binding, words).await?;
        }
        world.finish_load().await.map(drop)
    })
    .await
}
