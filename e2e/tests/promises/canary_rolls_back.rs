//! A worse version is rolled back, whatever makes it worse, and no client sees a failure.

use slipway_crds::v1alpha1::RolloutOutcome;
use slipway_e2e::world::{self, TestWorld, revision_weights, stable_revision};

/// Rolls `file` out over version 2 and returns the reason of its abort.
async fn rolls_back(world: &TestWorld, file: &str, version: &str) -> anyhow::Result<String> {
    let stable = world.start_model(&world.quick_example("digits/v2.yaml")?).await?;
    world.start_load("digits", 100).await?;
    world.apply(&world.quick_example(file)?).await?;
    let status = world.wait_aborted("digits", version).await?;
    assert_eq!(stable_revision(&status), stable);
    assert_eq!(
        revision_weights(&status).get(&stable),
        Some(&1000),
        "{}",
        world::describe_status(&status)
    );
    assert_eq!(
        world::find_condition(&status, "RolledBack").map(|(status, _)| status),
        Some("True")
    );
    assert!(
        matches!(
            status.history.first().map(|record| record.outcome),
            Some(RolloutOutcome::RolledBack)
        ),
        "{status:?}"
    );

    // Once all gateways have confirmed the abort, no request is answered by the bad version.
    let abort =
        status.rollout.as_ref().and_then(|rollout| rollout.abort.clone()).expect("an abort");
    let bad = world::candidate_revision(&status);
    let account = world.finish_load().await?;
    let left = abort.traffic_left_time.expect("traffic has left").0;
    if let Some(last) = account.revision(&bad).last_sent_at {
        assert!(
            last <= left + jiff::SignedDuration::from_secs(1),
            "sent to the bad version at {last}, traffic left at {left}"
        );
    }
    Ok(abort.reason)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn wrong_answers() -> anyhow::Result<()> {
    world::run_promise("rolls-back-wrong", async |world| {
        assert_eq!(rolls_back(&world, "digits/v3.yaml", "v3").await?, "GateFailed");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn errors() -> anyhow::Result<()> {
    world::run_promise("rolls-back-errors", async |world| {
        let reason = rolls_back(&world, "digits/v4-errors.yaml", "v4-errors").await?;
        assert!(["GateFailed", "Braked"].contains(&reason.as_str()), "{reason}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn slow() -> anyhow::Result<()> {
    world::run_promise("rolls-back-slow", async |world| {
        let reason = rolls_back(&world, "digits/v4.yaml", "v4").await?;
        assert!(["GateFailed", "Braked"].contains(&reason.as_str()), "{reason}");
        Ok(())
    })
    .await
}
