//! A better version grows through its steps, each judged, and becomes stable; no request is lost.

use slipway_e2e::world::{self, revision_weights};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn canary_promotes() -> anyhow::Result<()> {
    world::run_promise("canary-promotes", async |world| {
        let first = world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 120).await?;
        world.apply(&world.quick_example("digits/v2.yaml")?).await?;
        let status = world.wait_promoted("digits", "v2").await?;

        let record = status.history.first().expect("a rollout that ended is in the history");
        let asked: Vec<i32> = record.steps.iter().map(|step| step.weight_permille).collect();
        assert_eq!(asked, [50, 250, 500, 1000]);
        for step in &record.steps {
            assert!(step.confirmed_time.is_some(), "{step:?}");
            // The last step ends with its confirmation, before any request could be counted.
            let Some(observed) = step.observed_permille else {
                assert_eq!(step.weight_permille, 1000, "requests flowed in every step: {step:?}");
                continue;
            };
            assert!(
                (observed - step.weight_permille).abs() <= 30,
                "observed share is off: {step:?}"
            );
        }
        let second = status.stable.as_ref().expect("a stable revision").revision.clone();
        assert_ne!(first, second);
        assert_eq!(revision_weights(&status).get(&second), Some(&1000));

        let account = world.finish_load().await?;
        assert!(
            account.revision(&first).answered > 0 && account.revision(&second).answered > 0,
            "{account:?}"
        );
        // Applying the same content again causes no rollout.
        world.apply(&world.quick_example("digits/v2.yaml")?).await?;
        let again = world.status("digits").await.map_err(anyhow::Error::msg)?;
        assert!(again.rollout.is_none(), "{}", world::describe_status(&again));
        Ok(())
    })
    .await
}
