//! A pod of the only serving revision ends under load, gracefully and by force: no request is lost.

use slipway_e2e::world;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn pod_killed_under_load() -> anyhow::Result<()> {
    world::run_promise("pod-killed", async |world| {
        let stable = world.start_model(&world.quick_example("digits/v2.yaml")?).await?;
        world.start_load("digits", 100).await?;
        let selector = format!("ml.slipway.dev/revision={stable}");
        for force in [&["--wait=false"][..], &["--grace-period=0", "--force"][..]] {
            let victim =
                world.object_names("pods", &selector).await?.first().cloned().unwrap_or_default();
            let kill = [&["delete", "-n", &world.namespace, &victim][..], force].concat();
            world.cluster.kubectl(kill).await?;
            world
                .wait_for_status(
                    "digits",
                    "the replicas to be back",
                    world::PODS_TIMEOUT,
                    world::check_ready,
                )
                .await?;
        }
        world.finish_load().await?;
        Ok(())
    })
    .await
}
