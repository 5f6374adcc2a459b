//! Without a digest in the spec, the first pod's model is that of its revision: content that is
//! written to the same address later is not served by any pod, even without an operator, and no
//! request is affected.

use serde_json::json;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};
use slipway_e2e::product;
use slipway_e2e::world::{self, PODS_TIMEOUT, TestWorld};

/// A store that implements enough of S3 for reads without credentials, with one file that can be
/// overwritten.
fn store(version: &str) -> String {
    let script = format!(
        "cd /www && $B mkdir -p models && $B cp /models/digits/{version}/model.onnx models/latest.onnx && exec $B httpd -f -p 8080 -h /www"
    );
    let labels = json!({"app.kubernetes.io/name": "latest-store"});
    let security = json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
    let container = json!({
        "name": "store", "image": "docker.io/slipway/slipway-model-store:dev", "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/busybox", "sh", "-c", script], "env": [{"name": "B", "value": "/bin/busybox"}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "www", "mountPath": "/www"}],
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}
    });
    let pod = json!({
        "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "securityContext": security,
        "containers": [container], "volumes": [{"name": "www", "emptyDir": {}}]
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "latest-store", "labels": labels},
        "spec": {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": pod}}
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "latest-store"},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}).to_string()
}

/// Writes this version to the address.
async fn write(world: &TestWorld, version: &str) -> anyhow::Result<()> {
    world.cluster.apply(&world.namespace, &store(version)).await?;
    let rollout =
        ["rollout", "status", "-n", &world.namespace, "deployment/latest-store", "--timeout=60s"];
    world.cluster.kubectl(rollout).await?;
    Ok(())
}

fn model(world: &TestWorld) -> anyhow::Result<ModelDeployment> {
    let mut object = world.quick_example("digits/v1.yaml")?;
    object.spec.model.uri = "s3://models/latest.onnx".into();
    object.spec.model.digest = None;
    object.spec.replicas = Some(2);
    object.spec.template.server_container_mut().env = serde_json::from_value(json!([
        {"name": "AWS_ENDPOINT", "value": "http://latest-store"}, {"name": "AWS_ALLOW_HTTP", "value": "true"},
        {"name": "AWS_SKIP_SIGNATURE", "value": "true"}, {"name": "AWS_REGION", "value": "none"}
    ]))?;
    Ok(object)
}

/// Waits until the newest pods reject the content, while `ready` others serve.
async fn refused(world: &TestWorld, ready: i32) -> anyhow::Result<()> {
    let told = |status: &ModelDeploymentStatus| {
        let stable = status.stable.as_ref().ok_or("no stable")?;
        let all = status.message.contains("DigestMismatch") && stable.ready_replicas == ready;
        if all {
            Ok(())
        } else {
            Err(format!("{} ready: {}", stable.ready_replicas, status.message))
        }
    };
    world
        .wait_for_status("digits", "pods with other bytes to be refused", PODS_TIMEOUT, told)
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn one_revision_is_one_model() -> anyhow::Result<()> {
    world::run_promise_alone("one-model", async |world| {
        write(&world, "v1").await?;
        let digest = world.quick_example("digits/v1.yaml")?.spec.model.digest;
        let revision = world.start_model(&model(&world)?).await?;
        // A pod may serve before its digest is in the status.
        let found = |status: &ModelDeploymentStatus| {
            let digest = status.stable.as_ref().and_then(|stable| stable.digest.clone());
            digest.ok_or_else(|| "no digest in the status of stable".to_owned()).map(drop)
        };
        let what = "the digest of what the first pod found";
        let status = world.wait_for_status("digits", what, PODS_TIMEOUT, found).await?;
        assert_eq!(status.stable.and_then(|stable| stable.digest), digest, "{what}");
        let wide = world
            .cluster
            .kubectl(["get", "mdep", "digits", "-n", &world.namespace, "-o", "wide"])
            .await?;
        assert!(wide.contains(digest.as_deref().unwrap_or("a digest")), "{wide}");
        world.start_load("digits", 60).await?;

        // The wrong model is written to the same address, a pod is deleted, and more are requested.
        write(&world, "v3").await?;
        let selector = format!("ml.slipway.dev/revision={revision}");
        let pods = world.object_names("pods", &selector).await?;
        world.cluster.kubectl(["delete", "-n", &world.namespace, "--wait=false", &pods[0]]).await?;
        world.patch_spec("digits", json!({"replicas": 3})).await?;
        refused(&world, 1).await?;

        // This needs no operator.
        product::scale_operator(&world.cluster, 0).await?;
        let started = world.account().await?;
        let flows = || async {
            let account = world.account().await.map_err(|error| error.to_string())?;
            let since = account.answered - started.answered;
            if since >= 600 { Ok(()) } else { Err(format!("{since} answers without an operator")) }
        };
        let outcome = world
            .cluster
            .wait_for(&world.namespace, "traffic without an operator", PODS_TIMEOUT, flows)
            .await;
        product::scale_operator(&world.cluster, 1).await?;
        outcome?;
        refused(&world, 1).await?;

        // The original content is restored: all pods start.
        write(&world, "v1").await?;
        world
            .wait_for_status("digits", "all pods to be ready", PODS_TIMEOUT, world::check_ready)
            .await?;
        let account = world.finish_load().await?;
        assert!(account.revision(&revision).answered > 0);
        Ok(())
    })
    .await
}
