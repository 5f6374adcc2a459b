//! A service without traffic has no evidence: the rollout holds and says so, and a person can promote it.

use std::time::Duration;

use slipway_e2e::world::{self, weights};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn no_traffic_holds() -> anyhow::Result<()> {
    world::run("no-traffic", async |world| {
        world.start(&world.quick("digits/v1.yaml")?).await?;
        let mut second = world.quick("digits/v2.yaml")?;
        second.spec.analysis.max_hold_seconds = 15;
        world.apply(&second).await?;
        let status = world.at_weight("digits", 50).await?;
        let candidate = world::candidate_revision(&status);
        // The hold runs out and a person is asked; it is neither promoted nor blamed.
        let asked = |status: &slipway_crds::v1alpha1::ModelDeploymentStatus| match world::condition(status, "Paused") {
            Some(("True", "HoldExceeded")) => Ok(()),
            _ => Err(world::brief(status)),
        };
        let status = world.wait_status("digits", "the hold to run out", Duration::from_secs(60), asked).await?;
        assert_eq!(weights(&status).get(&candidate), Some(&50));
        let verdict = world::condition(&status, "GatePassed").map(|(_, reason)| reason.to_owned());
        assert!(matches!(verdict.as_deref(), Some("NoData" | "NeedMoreData")), "{verdict:?}");
        world.annotate("digits", "ml.slipway.dev/promote-full", "1").await?;
        world.promoted("digits", "v2").await?;
        Ok(())
    })
    .await
}
