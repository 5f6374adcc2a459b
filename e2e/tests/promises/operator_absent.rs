//! Without an operator, traffic keeps flowing with the same weights, pods may be replaced, and no
//! rollout advances.

use slipway_e2e::product;
use slipway_e2e::world::{self, revision_weights};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn operator_absent() -> anyhow::Result<()> {
    world::run_promise_alone("operator-absent", async |world| {
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 80).await?;
        world.apply(&world.quick_example("digits/v2.yaml")?).await?;
        let before = world.wait_for_weight("digits", 50).await?;
        product::scale_operator(&world.cluster, 0).await?;
        let outcome = async {
            let start = world.account().await?;
            // A pod of stable is killed meanwhile: the ReplicaSet and the gateways handle it
            // without the operator.
            let stable = world::stable_revision(&before);
            let pods =
                world.object_names("pods", &format!("ml.slipway.dev/revision={stable}")).await?;
            let victim = pods.first().cloned().unwrap_or_default();
            world
                .cluster
                .kubectl(["delete", "-n", &world.namespace, &victim, "--wait=false"])
                .await?;
            let flows = || async {
                let account = world.account().await.map_err(|error| error.to_string())?;
                let since = account.answered - start.answered;
                if since >= 800 {
                    Ok(())
                } else {
                    Err(format!("{since} answers without an operator"))
                }
            };
            world
                .cluster
                .wait_for(
                    &world.namespace,
                    "traffic without an operator",
                    world::PODS_TIMEOUT,
                    flows,
                )
                .await?;
            let after = world.status("digits").await.map_err(anyhow::Error::msg)?;
            assert_eq!(
                revision_weights(&after),
                revision_weights(&before),
                "nothing may move without an operator"
            );
            anyhow::Ok(())
        }
        .await;
        product::scale_operator(&world.cluster, 1).await?;
        outcome?;
        world.wait_promoted("digits", "v2").await?;
        world.finish_load().await?;
        Ok(())
    })
    .await
}
