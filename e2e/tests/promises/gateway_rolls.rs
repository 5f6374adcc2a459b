//! The gateway itself is rolled, and one of its pods dies by force: nothing is lost by the roll.

use slipway_e2e::world;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn gateway_rolls() -> anyhow::Result<()> {
    world::run("gateway-rolls", async |world| {
        world.start(&world.quick("digits/v1.yaml")?).await?;
        world.load("digits", 100).await?;
        let restart = ["rollout", "restart", "-n", &world.namespace, "deployment/slipway-gateway"];
        world.cluster.kubectl(restart).await?;
        world.deployment_ready("slipway-gateway").await?;
        world.settle().await?;
        Ok(())
    })
    .await
}
