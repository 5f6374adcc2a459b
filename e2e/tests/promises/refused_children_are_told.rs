//! An object that Kubernetes rejects does not block other work, and the status contains Kubernetes'
//! reason.

use std::time::Duration;

use serde_json::json;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_e2e::world::{self, PODS_TIMEOUT, TestWorld};

/// The time limit for reporting.
const SOON: Duration = Duration::from_secs(10);

async fn said(world: &TestWorld, words: &[&str], reason: &str) -> anyhow::Result<()> {
    let told = |status: &ModelDeploymentStatus| {
        let all = status.state == reason && words.iter().all(|word| status.message.contains(word));
        if all { Ok(()) } else { Err(format!("{}: {}", status.state, status.message)) }
    };
    world.wait_for_status("digits", "the reason to be told", SOON, told).await.map(drop)
}

async fn has_ready(world: &TestWorld, count: i32) -> anyhow::Result<()> {
    let enough = |status: &ModelDeploymentStatus| {
        let ready = status.stable.as_ref().map_or(0, |stable| stable.ready_replicas);
        if ready == count { Ok(()) } else { Err(format!("{ready} pods are ready")) }
    };
    world.wait_for_status("digits", "pods to be ready", PODS_TIMEOUT, enough).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn refused_children_are_told() -> anyhow::Result<()> {
    world::run_promise("refused-children", async |world| {
        // A foreign budget has the name that Slipway's budget needs.
        let budget = [
            "create",
            "pdb",
            "digits",
            "-n",
            &world.namespace,
            "--selector=app=theirs",
            "--min-available=1",
        ];
        world.cluster.kubectl(budget).await?;
        let mut object = world.quick_example("digits/v1.yaml")?;
        object.spec.replicas = Some(1);
        world.apply(&object).await?;
        has_ready(&world, 1).await?;
        said(&world, &["PodDisruptionBudget digits", "not managed by"], "WriteRefused").await?;
        world.start_load("digits", 40).await?;
        world.patch_spec("digits", json!({"replicas": 2})).await?;
        has_ready(&world, 2).await?;

        // The quota allows no more pods than exist.
        let pods = world
            .cluster
            .kubectl(["get", "pods", "-n", &world.namespace, "-o", "name"])
            .await?
            .lines()
            .count();
        let hard = format!("--hard=pods={pods}");
        world.cluster.kubectl(["create", "quota", "few", "-n", &world.namespace, &hard]).await?;
        world.patch_spec("digits", json!({"replicas": 4})).await?;
        said(
            &world,
            &["PodDisruptionBudget digits", "2 of 4 pods", "exceeded quota: few"],
            "WriteRefused",
        )
        .await?;
        world.cluster.kubectl(["delete", "pdb", "digits", "-n", &world.namespace]).await?;
        let degraded =
            |status: &ModelDeploymentStatus| match world::find_condition(status, "Reconciling") {
                Some(("True", "Degraded")) => Ok(()),
                other => Err(format!("{other:?}")),
            };
        world.wait_for_status("digits", "the refusal to end", PODS_TIMEOUT, degraded).await?;
        world.cluster.kubectl(["delete", "quota", "few", "-n", &world.namespace]).await?;
        world.patch_spec("digits", json!({"replicas": 3})).await?;
        has_ready(&world, 3).await?;
        world.finish_load().await.map(drop)
    })
    .await
}
