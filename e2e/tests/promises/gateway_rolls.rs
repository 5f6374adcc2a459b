//! The gateway itself is rolled, and one of its pods is killed: the roll loses no request.

use slipway_e2e::world;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn gateway_rolls() -> anyhow::Result<()> {
    world::run_promise("gateway-rolls", async |world| {
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 100).await?;
        let restart = ["rollout", "restart", "-n", &world.namespace, "deployment/slipway-gateway"];
        world.cluster.kubectl(restart).await?;
        world.wait_deployment_ready("slipway-gateway").await?;
        world.finish_load().await?;
        Ok(())
    })
    .await
}
