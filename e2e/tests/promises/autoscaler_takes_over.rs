//! `replicas` is removed from the manifest and an autoscaler is added: the pods stay until the
//! autoscaler has set a number.

use std::sync::atomic::{AtomicI32, Ordering};

use serde_json::json;
use slipway_e2e::world::{self, TestWorld};

const BEFORE: i32 = 6;
const LEAST: i32 = 4;

/// The manifest without `replicas`, as a user writes it for an autoscaler.
fn without_replicas(world: &TestWorld) -> anyhow::Result<String> {
    let mut object = serde_json::to_value(world.quick_example("digits/v1.yaml")?)?;
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    object["spec"]["autoscaling"] = json!({
        "minReplicas": LEAST, "maxReplicas": 10,
        // An autoscaler that finds more pods than it wants waits for five minutes by default.
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "900m"}}}]
    });
    Ok(object.to_string())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn autoscaler_takes_over() -> anyhow::Result<()> {
    world::run_promise("autoscaler-takes-over", async |world| {
        let mut object = world.quick_example("digits/v1.yaml")?;
        object.spec.replicas = Some(BEFORE);
        let revision = world.start_model(&object).await?;
        world.start_load("digits", 40).await?;
        let fewest = AtomicI32::new(BEFORE);
        world.cluster.apply(&world.namespace, &without_replicas(&world)?).await?;
        let set = format!("digits-{revision}");
        let query =
            ["get", "replicaset", &set, "-n", &world.namespace, "-o=jsonpath={.spec.replicas}"];
        let spoken = || async {
            let text = world.cluster.kubectl(query).await.map_err(|error| error.to_string())?;
            let asked: i32 = text.trim().parse().map_err(|_| format!("{text} replicas"))?;
            fewest.fetch_min(asked, Ordering::Relaxed);
            let object =
                world.model_deployments().get("digits").await.map_err(|error| error.to_string())?;
            match (object.spec.replicas.unwrap_or_default(), asked) {
                (LEAST, LEAST) => Ok(()),
                (spec, asked) => Err(format!("spec.replicas {spec}, {asked} pods asked for")),
            }
        };
        world
            .cluster
            .wait_for(&world.namespace, "the autoscaler to speak", world::ROLLOUT_TIMEOUT, spoken)
            .await?;
        let fewest = fewest.into_inner();
        anyhow::ensure!(fewest >= LEAST, "{fewest} pods for a while");
        world.finish_load().await.map(drop)
    })
    .await
}
