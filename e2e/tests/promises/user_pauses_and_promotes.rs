//! A pause step waits for a user, `spec.paused` holds a rollout, `promote` ends the current wait,
//! `promote-full` skips to the end.

use serde_json::json;
use slipway_crds::v1alpha1::{
    AnalysisMode, CanaryStep, CanaryStrategy, RolloutPause, RolloutStage,
};
use slipway_e2e::world;

fn weight(percent: i32) -> CanaryStep {
    CanaryStep { set_weight: Some(percent.into()), ..CanaryStep::default() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn user_pauses_and_promotes() -> anyhow::Result<()> {
    world::run_promise("user-pauses", async |world| {
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 100).await?;
        let mut second = world.quick_example("digits/v2.yaml")?;
        let pause = CanaryStep { pause: Some(RolloutPause::default()), ..CanaryStep::default() };
        second.spec.strategy.canary =
            Some(CanaryStrategy { steps: vec![weight(20), pause, weight(60), weight(100)] });
        second.spec.analysis.gates = None;
        second.spec.analysis.mode = AnalysisMode::Disabled;
        world.apply(&second).await?;

        let paused = |status: &slipway_crds::v1alpha1::ModelDeploymentStatus| match &status.rollout
        {
            Some(rollout) if rollout.stage == RolloutStage::Paused => Ok(()),
            _ => Err(world::describe_status(status)),
        };
        let status = world
            .wait_for_status("digits", "the pause step", world::ROLLOUT_TIMEOUT, paused)
            .await?;
        assert_eq!(
            world::find_condition(&status, "Paused").map(|(status, _)| status),
            Some("True")
        );
        assert_eq!(
            status.candidate.as_ref().map(|candidate| candidate.weight.as_str()),
            Some("20%")
        );

        // A promote does not override a pause by the spec.
        world.patch_spec("digits", json!({"paused": true})).await?;
        let held =
            |status: &slipway_crds::v1alpha1::ModelDeploymentStatus| match world::find_condition(
                status, "Paused",
            ) {
                Some(("True", "UserPaused")) => Ok(()),
                _ => Err(world::describe_status(status)),
            };
        world.wait_for_status("digits", "the pause of the spec", world::PODS_TIMEOUT, held).await?;
        world.patch_spec("digits", json!({"paused": false})).await?;
        world
            .wait_for_status("digits", "the pause step again", world::PODS_TIMEOUT, paused)
            .await?;

        world.annotate("digits", "ml.slipway.dev/promote", "1").await?;
        world.wait_promoted("digits", "v2").await?;

        // All remaining steps at once.
        let mut third = world.quick_example("digits/v1.yaml")?;
        third.spec.model.version = Some("v1-again".into());
        third.spec.strategy = second.spec.strategy.clone();
        third.spec.analysis = second.spec.analysis.clone();
        world.apply(&third).await?;
        world.wait_for_status("digits", "the pause step", world::ROLLOUT_TIMEOUT, paused).await?;
        world.annotate("digits", "ml.slipway.dev/promote-full", "1").await?;
        world.wait_promoted("digits", "v1-again").await?;
        world.finish_load().await?;
        Ok(())
    })
    .await
}
