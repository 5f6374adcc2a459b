//! Prometheus is down: no rollout advances or is aborted, and the status says why; when it is back
//! the rollout continues.

use slipway_e2e::world::{self, revision_weights};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn prometheus_down_holds() -> anyhow::Result<()> {
    world::run_promise_alone("prometheus-down", async |world| {
        if world.cluster.is_foreign() {
            eprintln!("skipped: the Prometheus of a cluster of yours (CONTEXT) is not stopped");
            return Ok(());
        }
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 100).await?;
        world.cluster.stop_prometheus()?;
        let outcome = async {
            world.apply(&world.quick_example("digits/v2.yaml")?).await?;
            world.wait_for_weight("digits", 50).await?;
            let down = |status: &slipway_crds::v1alpha1::ModelDeploymentStatus| {
                match world::find_condition(status, "GatePassed") {
                    Some((_, "ProviderDown")) => Ok(()),
                    _ => Err(world::describe_status(status)),
                }
            };
            world
                .wait_for_status("digits", "the verdict ProviderDown", world::PODS_TIMEOUT, down)
                .await?;
            // Long enough for several evaluations of the judge, counted in requests instead of
            // seconds.
            let start = world.account().await?.answered;
            let flows = || async {
                let since =
                    world.account().await.map_err(|error| error.to_string())?.answered - start;
                if since >= 1000 { Ok(()) } else { Err(format!("{since} answers")) }
            };
            world
                .cluster
                .wait_for(&world.namespace, "1000 answers", world::PODS_TIMEOUT, flows)
                .await?;
            let status = world.status("digits").await.map_err(anyhow::Error::msg)?;
            let candidate = world::candidate_revision(&status);
            assert_eq!(
                revision_weights(&status).get(&candidate),
                Some(&50),
                "{}",
                world::describe_status(&status)
            );
            assert_ne!(
                world::find_condition(&status, "RolledBack").map(|(status, _)| status),
                Some("True")
            );
            anyhow::Ok(())
        }
        .await;
        world.cluster.start_prometheus().await?;
        outcome?;
        world.wait_promoted("digits", "v2").await?;
        world.finish_load().await?;
        Ok(())
    })
    .await
}
