//! A user aborts: stable has the traffic again, the candidate is removed, a retry starts it again.

use std::time::Duration;

use slipway_e2e::world::{self, candidate_revision, revision_weights};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn user_aborts() -> anyhow::Result<()> {
    world::run_promise("user-aborts", async |world| {
        let stable = world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 80).await?;
        let mut second = world.quick_example("digits/v2.yaml")?;
        // A larger number of labels than the test sends: the judge stays undecided at the first
        // step.
        for gate in second.spec.analysis.gates.iter_mut().flatten() {
            if let Some(accuracy) = gate.accuracy.as_mut() {
                accuracy.min_labels = 1_000_000;
            }
        }
        world.apply(&second).await?;
        let candidate = candidate_revision(&world.wait_for_weight("digits", 50).await?);
        world.annotate("digits", "ml.slipway.dev/abort", "1").await?;
        let status = world.wait_aborted("digits", "v2").await?;
        assert_eq!(world::find_condition(&status, "RolledBack"), Some(("True", "UserAborted")));
        assert_eq!(revision_weights(&status).get(&stable), Some(&1000));
        let abort =
            status.rollout.as_ref().and_then(|rollout| rollout.abort.clone()).expect("an abort");
        let took =
            abort.traffic_left_time.expect("traffic has left").0.duration_since(abort.time.0);
        assert!(
            took < jiff::SignedDuration::from_secs(2),
            "traffic left the candidate only after {took}"
        );

        // Its pods are removed once no gateway sends requests to them.
        let gone = || async {
            let selector = format!("ml.slipway.dev/revision={candidate}");
            let pods =
                world.object_names("pods", &selector).await.map_err(|error| error.to_string())?;
            if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) }
        };
        world
            .cluster
            .wait_for(&world.namespace, "the candidate's pods to go", Duration::from_secs(90), gone)
            .await?;

        // The same spec stays aborted until a user retries.
        world.annotate("digits", "ml.slipway.dev/retry", "1").await?;
        let status = world.wait_for_weight("digits", 50).await?;
        assert_eq!(candidate_revision(&status), candidate);
        world.finish_load().await?;
        Ok(())
    })
    .await
}
