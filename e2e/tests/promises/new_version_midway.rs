//! A third version in the middle of the second's rollout: traffic returns to stable, the second is
//! removed, the third starts at its first step. Returning to the stable content ends the rollout
//! without an abort.

use slipway_crds::v1alpha1::RolloutOutcome;
use slipway_e2e::world::{self, candidate_revision, stable_revision};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn new_version_midway() -> anyhow::Result<()> {
    world::run_promise("new-version-midway", async |world| {
        let first = world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 80).await?;
        let mut second = world.quick_example("digits/v3.yaml")?;
        // Without enough labels for a verdict, version 3 stays at its first step.
        for accuracy in second
            .spec
            .analysis
            .gates
            .iter_mut()
            .flatten()
            .filter_map(|gate| gate.accuracy.as_mut())
        {
            accuracy.min_labels = 1_000_000;
            accuracy.max_drop = 100.into();
        }
        second.spec.analysis.gates.iter_mut().flatten().for_each(|gate| {
            if let Some(errors) = gate.error_rate.as_mut() {
                errors.min_requests = 1_000_000;
            }
        });
        second.spec.analysis.gates = second.spec.analysis.gates.map(|gates| {
            let mut gates: Vec<_> =
                gates.into_iter().filter(|gate| gate.accuracy.is_none()).collect();
            gates.iter_mut().for_each(|gate| {
                gate.latency = None;
                if gate.name == "errors" {
                    gate.error_rate = Some(slipway_crds::v1alpha1::ErrorRateGate {
                        min_requests: 1_000_000,
                        ..slipway_crds::v1alpha1::ErrorRateGate::default()
                    });
                }
            });
            gates
        });
        world.apply(&second).await?;
        let status = world.wait_for_weight("digits", 50).await?;
        let middle = candidate_revision(&status);

        world.apply(&world.quick_example("digits/v2.yaml")?).await?;
        let status = world.wait_promoted("digits", "v2").await?;
        let superseded = status
            .history
            .iter()
            .find(|record| record.revision == middle)
            .expect("a record of the second");
        assert_eq!(superseded.outcome, RolloutOutcome::Superseded);
        let third = stable_revision(&status);

        // Back to stable in the middle: the first content is applied over the running one, and
        // back.
        let mut back = second.clone();
        back.spec.model.version = Some("v3-again".into());
        world.apply(&back).await?;
        world.wait_for_weight("digits", 50).await?;
        world.apply(&world.quick_example("digits/v2.yaml")?).await?;
        let status = world.wait_promoted("digits", "v2").await?;
        assert_eq!(stable_revision(&status), third);
        assert_ne!(first, third);
        assert_eq!(world::find_condition(&status, "RolledBack"), None, "no blame");
        world.finish_load().await?;
        Ok(())
    })
    .await
}
