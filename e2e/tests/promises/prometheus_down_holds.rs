//! Prometheus is away: nothing advances, nobody is blamed, status says why; when it is back the rollout goes on.

use slipway_e2e::world::{self, weights};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn prometheus_down_holds() -> anyhow::Result<()> {
    world::run_alone("prometheus-down", async |world| {
        if world.cluster.is_foreign() {
            eprintln!("skipped: the Prometheus of a cluster of yours (CONTEXT) is not stopped");
            return Ok(());
        }
        world.start(&world.quick("digits/v1.yaml")?).await?;
        world.load("digits", 100).await?;
        world.cluster.stop_prometheus()?;
        let outcome = async {
            world.apply(&world.quick("digits/v2.yaml")?).await?;
            world.at_weight("digits", 50).await?;
            let down =
                |status: &slipway_crds::v1alpha1::ModelDeploymentStatus| match world::condition(status, "GatePassed") {
                    Some((_, "ProviderDown")) => Ok(()),
                    _ => Err(world::brief(status)),
                };
            world.wait_status("digits", "the verdict ProviderDown", world::PODS, down).await?;
            // Long enough for several looks of the judge, counted in requests instead of seconds.
            let start = world.account().await?.answered;
            let flows = || async {
                let since = world.account().await.map_err(|error| error.to_string())?.answered - start;
                if since >= 1000 { Ok(()) } else { Err(format!("{since} answers")) }
            };
            world.cluster.wait_for(&world.namespace, "1000 answers", world::PODS, flows).await?;
            let status = world.status("digits").await.map_err(anyhow::Error::msg)?;
            let candidate = world::candidate_revision(&status);
            assert_eq!(weights(&status).get(&candidate), Some(&50), "{}", world::brief(&status));
            assert_ne!(world::condition(&status, "RolledBack").map(|(status, _)| status), Some("True"));
            anyhow::Ok(())
        }
        .await;
        world.cluster.start_prometheus().await?;
        outcome?;
        world.promoted("digits", "v2").await?;
        world.settle().await?;
        Ok(())
    })
    .await
}
