//! A service without traffic has no evidence: the rollout holds and reports it, and a user can
//! promote it.

use std::time::Duration;

use slipway_e2e::world::{self, revision_weights};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn no_traffic_holds() -> anyhow::Result<()> {
    world::run_promise("no-traffic", async |world| {
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        let mut second = world.quick_example("digits/v2.yaml")?;
        second.spec.analysis.max_hold_seconds = 15;
        world.apply(&second).await?;
        let status = world.wait_for_weight("digits", 50).await?;
        let candidate = world::candidate_revision(&status);
        // The hold expires and the status asks the user; the version is neither promoted nor
        // aborted.
        let asked =
            |status: &slipway_crds::v1alpha1::ModelDeploymentStatus| match world::find_condition(
                status, "Paused",
            ) {
                Some(("True", "HoldExceeded")) => Ok(()),
                _ => Err(world::describe_status(status)),
            };
        let status = world
            .wait_for_status("digits", "the hold to run out", Duration::from_secs(60), asked)
            .await?;
        assert_eq!(revision_weights(&status).get(&candidate), Some(&50));
        let verdict =
            world::find_condition(&status, "GatePassed").map(|(_, reason)| reason.to_owned());
        assert!(matches!(verdict.as_deref(), Some("NoData" | "NeedMoreData")), "{verdict:?}");
        world.annotate("digits", "ml.slipway.dev/promote-full", "1").await?;
        world.wait_promoted("digits", "v2").await?;
        Ok(())
    })
    .await
}
