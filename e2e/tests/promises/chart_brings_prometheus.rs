//! Without an existing Prometheus: the chart's small one discovers gateways and model servers, and
//! rollouts are judged by its data.

use slipway_e2e::product::{self, PrometheusSource};
use slipway_e2e::world;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn chart_brings_prometheus() -> anyhow::Result<()> {
    world::run_promise_alone("chart-prometheus", async |world| {
        if world.cluster.is_foreign() {
            eprintln!("skipped: its image is built for a cluster of ours");
            return Ok(());
        }
        product::install_charts(&world.cluster, &PrometheusSource::BuiltChart).await?;
        let outcome = async {
            world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
            world.start_load("digits", 120).await?;
            world.apply(&world.quick_example("digits/v2.yaml")?).await?;
            let status = world.wait_promoted("digits", "v2").await?;
            let record = status.history.first().expect("a rollout that ended is in the history");
            // Only a verdict advances, and the numbers of a verdict come from Prometheus.
            let judged = &record.steps[..record.steps.len() - 1];
            assert!(
                !judged.is_empty() && judged.iter().all(|step| step.verdict.contains("errors")),
                "{record:?}"
            );
            world.finish_load().await?;
            Ok(())
        }
        .await;
        product::install_charts(
            &world.cluster,
            &PrometheusSource::Url(world.cluster.prometheus_url()?),
        )
        .await?;
        outcome
    })
    .await
}
