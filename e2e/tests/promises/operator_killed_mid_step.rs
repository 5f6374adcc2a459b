//! The operator is killed by SIGKILL in the middle of a step; its successor continues at the same
//! point, without a shorter wait and without losing a request.

use slipway_e2e::{product, world};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn operator_killed_mid_step() -> anyhow::Result<()> {
    world::run_promise_alone("operator-killed", async |world| {
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 100).await?;
        world.apply(&world.quick_example("digits/v2.yaml")?).await?;
        for permille in [50, 250] {
            let before = world.wait_for_weight("digits", permille).await?;
            let kill = [
                "delete",
                "pods",
                "-n",
                product::NAMESPACE,
                "-l",
                product::OPERATOR_SELECTOR,
                "--grace-period=0",
                "--force",
            ];
            world.cluster.kubectl(kill).await?;
            let now = world.status("digits").await.map_err(anyhow::Error::msg)?;
            let reached = |status: &slipway_crds::v1alpha1::ModelDeploymentStatus| {
                status.rollout.as_ref().map(|rollout| rollout.step_index)
            };
            assert!(
                reached(&now) >= reached(&before) || now.rollout.is_none(),
                "{}",
                world::describe_status(&now)
            );
        }
        let status = world.wait_promoted("digits", "v2").await?;
        let steps: Vec<i32> =
            status.history[0].steps.iter().map(|step| step.weight_permille).collect();
        assert_eq!(steps, [50, 250, 500, 1000], "no step twice and none left out");
        world.finish_load().await?;
        Ok(())
    })
    .await
}
