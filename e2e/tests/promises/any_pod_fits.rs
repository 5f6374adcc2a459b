//! `spec.template`: settings that a cluster or a model needs are in the pod, the model is served
//! and rolled out by such pods, and settings that would break a promise are rejected with the name
//! of the field.

use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_e2e::world::{self, PODS_TIMEOUT, TestWorld};

/// The image of the model store contains a busybox.
const BUSYBOX: &str = "docker.io/slipway/slipway-model-store:dev";

fn template() -> Value {
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let busybox = |name: &str, script: &str| {
        json!({
            "name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "securityContext": security,
            "command": ["/bin/busybox", "sh", "-c", script], "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]
        })
    };
    json!({
        "metadata": {
            "labels": {"azure.workload.identity/use": "true", "team": "growth"},
            "annotations": {"sidecar.istio.io/inject": "false"}
        },
        "spec": {
            "terminationGracePeriodSeconds": 120,
            "priorityClassName": "models",
            "securityContext": {"runAsUser": 1_000_620_000, "runAsGroup": 1_000_620_000, "fsGroup": 1_000_620_000},
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"team": "growth"}}
            }],
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "initContainers": [busybox("prepare", "echo here > /shared/prepared")],
            "containers": [
                {
                    "name": "server",
                    "args": ["--queue-capacity=128"],
                    "env": [{"name": "GREETING", "value": "of $(POD_NAME)"}],
                    "envFrom": [{"configMapRef": {"name": "settings"}}],
                    "readinessProbe": {"failureThreshold": 5},
                    "startupProbe": {"httpGet": {"path": "/livez", "port": "metrics"}, "periodSeconds": 1, "failureThreshold": 60},
                    "ports": [{"name": "debug", "containerPort": 6060}],
                    "volumeMounts": [
                        {"name": "shm", "mountPath": "/dev/shm"}, {"name": "shared", "mountPath": "/shared", "readOnly": true}
                    ]
                },
                busybox("beside", "while :; do /bin/busybox sleep 1; done")
            ],
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
                {"name": "shared", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}
            ]
        }
    })
}

/// The pod of the revision.
async fn pod(world: &TestWorld, revision: &str) -> anyhow::Result<Value> {
    let selector = format!("ml.slipway.dev/revision={revision}");
    let list = world
        .cluster
        .kubectl(["get", "pods", "-n", &world.namespace, "-l", &selector, "-o", "json"])
        .await?;
    Ok(serde_json::from_str::<Value>(&list)?["items"][0].clone())
}

fn check(pod: &Value) {
    let spec = &pod["spec"];
    assert_eq!(pod["metadata"]["labels"]["azure.workload.identity/use"], "true");
    assert_eq!(pod["metadata"]["annotations"]["sidecar.istio.io/inject"], "false");
    assert_eq!(
        (&spec["terminationGracePeriodSeconds"], &spec["priorityClassName"]),
        (&json!(120), &json!("models"))
    );
    assert_eq!(spec["securityContext"]["runAsUser"], 1_000_620_000);
    assert_eq!(spec["topologySpreadConstraints"].as_array().map(Vec::len), Some(1));
    let names = |list: &str| {
        let containers = spec[list].as_array().into_iter().flatten();
        containers
            .map(|container| container["name"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (names("initContainers"), names("containers")),
        (vec!["prepare".into(), "fetch".into()], vec!["server".into(), "beside".into()])
    );
    assert_eq!(spec["containers"][0]["args"], json!(["serve", "--queue-capacity=128"]));
    assert_eq!(spec["containers"][0]["readinessProbe"]["failureThreshold"], 5);
    assert_eq!(spec["containers"][0]["readinessProbe"]["httpGet"]["path"], "/readyz");
    // Only Slipway's scratch volumes must be marked as safe to evict, so that they do not prevent
    // the removal of a node.
    let movable =
        pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"].as_str();
    let movable: Vec<&str> = movable.unwrap_or_default().split(',').collect();
    assert!(movable.contains(&"models") && !movable.contains(&"shared"), "{movable:?}");
    // The step that fetches the model has the server's environment.
    assert_eq!(spec["initContainers"][1]["envFrom"], spec["containers"][0]["envFrom"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn any_pod_fits() -> anyhow::Result<()> {
    world::run_promise("any-pod", async |world| {
        let settings = ["create", "configmap", "settings", "-n", &world.namespace, "--from-literal=RUST_BACKTRACE=1"];
        world.cluster.kubectl(settings).await?;
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "models"}, "value": 1000
        });
        world.cluster.apply(&world.namespace, &class.to_string()).await?;
        let with_template = |file: &str| -> anyhow::Result<_> {
            let mut object = world.quick_example(file)?;
            object.spec.template = serde_json::from_value(template())?;
            Ok(object)
        };
        let stable = world.start_model(&with_template("digits/v1.yaml")?).await?;
        check(&pod(&world, &stable).await?);
        world.start_load("digits", 60).await?;
        world.apply(&with_template("digits/v2.yaml")?).await?;
        let status = world.wait_promoted("digits", "v2").await?;
        check(&pod(&world, &world::stable_revision(&status)).await?);

        // A setting that would break a promise is rejected; the running version keeps serving.
        let port = json!([{"name": "server", "ports": [{"name": "http", "containerPort": 80}]}]);
        world.patch_spec("digits", json!({"template": {"spec": {"containers": port}}})).await?;
        let refused = |status: &ModelDeploymentStatus| {
            let all = status.conditions.iter().map(|it| it.message.as_str()).collect::<Vec<_>>();
            let named = all.iter().any(|said| said.contains("spec.template.spec.containers[server].ports[http]"));
            if named { Ok(()) } else { Err(format!("{all:?}")) }
        };
        world.wait_for_status("digits", "the refusal to be told", PODS_TIMEOUT, refused).await?;
        world.finish_load().await?;
        Ok(())
    })
    .await
}
