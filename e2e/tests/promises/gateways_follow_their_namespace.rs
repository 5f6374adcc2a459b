//! The gateway follows the settings in the annotation of its namespace: the number of pods, or an
//! autoscaler that scales it under load; without the annotation, the chart's settings apply again.
//! No request is lost meanwhile.

use anyhow::{Context, ensure};
use serde_json::Value;
use slipway_e2e::world::{self, ROLLOUT_TIMEOUT, TestWorld};

const ANNOTATION: &str = "ml.slipway.dev/gateway";
/// A target of two millicores per pod is soon exceeded.
const AUTOSCALED: &str = "replicas: 1\nautoscaling: { mode: Enabled, minReplicas: 1, maxReplicas: 3, targetAverageCpu: 2m }\n";

async fn say(world: &TestWorld, settings: Option<&str>) -> anyhow::Result<()> {
    let change =
        settings.map_or_else(|| format!("{ANNOTATION}-"), |text| format!("{ANNOTATION}={text}"));
    world
        .cluster
        .kubectl(["annotate", "namespace", &world.namespace, "--overwrite", &change])
        .await?;
    Ok(())
}

/// Waits until the gateway has this number of pods, all of them ready.
async fn pods(world: &TestWorld, what: &str, wanted: i64) -> anyhow::Result<()> {
    let look = || async {
        let get = ["get", "deployment", "slipway-gateway", "-n", &world.namespace, "-o", "json"];
        let text = world.cluster.kubectl(get).await.map_err(|error| error.to_string())?;
        let gateway: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let counts = [
            &gateway["spec"]["replicas"],
            &gateway["status"]["replicas"],
            &gateway["status"]["readyReplicas"],
        ];
        let all = counts.iter().all(|count| count.as_i64() == Some(wanted));
        if all { Ok(()) } else { Err(format!("{counts:?} pods")) }
    };
    Ok(world.cluster.wait_for(&world.namespace, what, ROLLOUT_TIMEOUT, look).await?)
}

async fn wrong(world: &TestWorld) -> anyhow::Result<()> {
    say(world, Some("replicas: many")).await?;
    let told = |status: &slipway_crds::v1alpha1::ModelDeploymentStatus| {
        let found = status
            .conditions
            .iter()
            .find(|it| it.type_ == "GatewayOutdated")
            .ok_or("nothing is said")?;
        let names = found.reason == "InvalidGatewaySettings"
            && found.message.contains("replicas: invalid type");
        if names { Ok(()) } else { Err(format!("{}: {}", found.reason, found.message)) }
    };
    let status = world
        .wait_for_status("digits", "the wrong value to be told", ROLLOUT_TIMEOUT, told)
        .await?;
    let ready = world::find_condition(&status, "Ready").context("Ready")?;
    ensure!(ready.0 == "True", "it serves all the same: {ready:?}");
    pods(world, "the gateway to stay as it is", 3).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn gateways_follow_their_namespace() -> anyhow::Result<()> {
    world::run_promise("own-gateway", async |world| {
        say(&world, Some("replicas: 1")).await?;
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        pods(&world, "the gateway that the namespace asks for", 1).await?;
        world.start_load("digits", 60).await?;
        say(&world, Some(AUTOSCALED)).await?;
        pods(&world, "the autoscaler to scale the gateway", 3).await?;
        wrong(&world).await?;
        say(&world, None).await?;
        pods(&world, "the gateway of the chart", 2).await?;
        world.finish_load().await.map(drop)
    })
    .await
}
