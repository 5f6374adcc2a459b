//! Green starts completely behind the preview address, then takes the traffic; blue stays ready,
//! and an abort returns to blue.

use std::time::Duration;

use serde_json::json;
use slipway_contracts::{headers, ports};
use slipway_crds::v1alpha1::{ModelDeployment, RolloutStage};
use slipway_e2e::world::{self, TestWorld, candidate_revision, revision_weights, stable_revision};

const NAME: &str = "digits-bg";

/// Blue-green that waits for a user, so that every stage can be checked.
fn by_hand(world: &TestWorld, file: &str) -> anyhow::Result<ModelDeployment> {
    let mut object = world.quick_example(file)?;
    object.spec.strategy.probation_seconds = 60;
    if let Some(blue_green) = object.spec.strategy.blue_green.as_mut() {
        blue_green.auto_promotion_enabled = false;
        blue_green.switch_steps = vec![100.into()];
    }
    Ok(object)
}

/// Sends one request to the preview address; returns the revision that answered.
async fn ask_preview(world: &TestWorld) -> anyhow::Result<String> {
    let preview = format!("{NAME}-preview");
    let url = format!(
        "{}/v2/models/digits/infer",
        world.service_url(&preview, ports::PRIVATE.number).await?
    );
    let row = vec![0.0; 64];
    let body = world::infer_request(&row);
    let refused = world.http.post(&url, Some(&preview), &body).await?;
    anyhow::ensure!(refused.status == 401, "without the token: {refused:?}");
    let answer = world.http.post_with_token(&url, &preview, &world.token().await?, &body).await?;
    anyhow::ensure!(answer.status.is_success(), "{answer:?}");
    Ok(answer.header(headers::REVISION).to_owned())
}

async fn until_stage(
    world: &TestWorld,
    stage: RolloutStage,
) -> anyhow::Result<slipway_crds::v1alpha1::ModelDeploymentStatus> {
    let what = format!("stage {stage:?}");
    world
        .wait_for_status(NAME, &what, world::ROLLOUT_TIMEOUT, |status| match &status.rollout {
            Some(rollout) if rollout.stage == stage => Ok(()),
            _ => Err(world::describe_status(status)),
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn blue_green() -> anyhow::Result<()> {
    world::run_promise("blue-green", async |world| {
        let blue = world.start_model(&by_hand(&world, "digits/blue-green-v1.yaml")?).await?;
        world.start_load(NAME, 60).await?;
        world.apply(&by_hand(&world, "digits/blue-green-v2.yaml")?).await?;

        // Preview: green is complete, and only the preview address reaches it.
        let status = until_stage(&world, RolloutStage::Preview).await?;
        let green = candidate_revision(&status);
        assert_eq!(revision_weights(&status).get(&blue), Some(&1000));
        let seen = || async {
            let answered = ask_preview(&world).await.map_err(|error| error.to_string())?;
            if answered == green { Ok(()) } else { Err(format!("answered by {answered}")) }
        };
        world
            .cluster
            .wait_for(&world.namespace, "green behind the preview", Duration::from_secs(30), seen)
            .await?;
        assert_eq!(world.account().await?.revision(&green).answered, 0);

        // Switch: green has all traffic, blue is ready with all pods.
        world.annotate(NAME, "ml.slipway.dev/promote", "1").await?;
        let status = until_stage(&world, RolloutStage::Probation).await?;
        assert_eq!(revision_weights(&status).get(&green), Some(&1000));
        assert_eq!(stable_revision(&status), blue);
        let kept = status.stable.as_ref().map(|stable| stable.ready_replicas);
        assert_eq!(kept, Some(2), "blue must stay warm: {}", world::describe_status(&status));

        // Abort: blue has the traffic again at once.
        world.annotate(NAME, "ml.slipway.dev/abort", "1").await?;
        let status = world.wait_aborted(NAME, "v2").await?;
        assert_eq!(revision_weights(&status).get(&blue), Some(&1000));

        // The rollout again, this time to the end.
        world.annotate(NAME, "ml.slipway.dev/retry", "2").await?;
        until_stage(&world, RolloutStage::Preview).await?;
        world.patch_spec(NAME, json!({"strategy": {"probationSeconds": 3}})).await?;
        world.annotate(NAME, "ml.slipway.dev/promote", "2").await?;
        let status = world.wait_promoted(NAME, "v2").await?;
        assert_eq!(stable_revision(&status), green);

        let account = world.finish_load().await?;
        assert!(
            account.revision(&blue).answered > 0 && account.revision(&green).answered > 0,
            "{account:?}"
        );
        Ok(())
    })
    .await
}
