//! A model with a baseline: its pods answer the golden requests before they serve, live traffic is
//! compared with the reference, and the accuracy that is expected without labels equals the one
//! that labels show. A model is never served with the baseline of another.

use anyhow::{Context, ensure};
use slipway_crds::v1alpha1::{BaselineSource, ModelDeployment};
use slipway_e2e::world::{self, TestWorld, revision_weights};

/// Number of rows before conclusions are drawn: the held-out rows twice.
const ROWS: f64 = 1800.0;

fn watched(
    world: &TestWorld,
    file: &str,
    baseline: Option<BaselineSource>,
) -> anyhow::Result<ModelDeployment> {
    let mut object = world.quick_example(file)?;
    object.spec.model.baseline = baseline;
    Ok(object)
}

/// One number from Prometheus about the namespace, which replaces `NS` in the query.
async fn number(world: &TestWorld, query: &str) -> anyhow::Result<f64> {
    let query = query
        .replace("NS", &format!("namespace=\"{}\",modeldeployment=\"digits\"", world.namespace));
    world.query_prometheus(&query).await?.with_context(|| format!("nothing matches {query}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn baseline_is_watched() -> anyhow::Result<()> {
    world::run_promise("baseline", async |world| {
        let baseline = world.quick_example("08-baseline.yaml")?.spec.model.baseline;
        let stable =
            world.start_model(&watched(&world, "digits/v1.yaml", baseline.clone())?).await?;
        let selector =
            format!("ml.slipway.dev/revision={stable},app.kubernetes.io/component=runtime");
        let logs = ["logs", "-n", &world.namespace, "-l", &selector, "-c=server", "--tail=-1"];
        let logs = world.cluster.kubectl(logs).await?;
        ensure!(logs.contains("the golden requests are answered as the baseline says"), "{logs}");

        world.start_load("digits", 150).await?;
        let enough = || async {
            let rows = number(&world, "sum(slipway_runtime_observed_rows_total{NS})").await;
            let rows = rows.map_err(|error| error.to_string())?;
            if rows >= ROWS { Ok(()) } else { Err(format!("{rows} rows")) }
        };
        world
            .cluster
            .wait_for(&world.namespace, "rows to be counted", world::PODS_TIMEOUT, enough)
            .await?;
        // The baseline was made from these rows, so there must be no drift: PSI by
        // docs/model-metrics.md, of the feature with the largest value.
        let counts = "sum by (feature, bin) (slipway_runtime_feature_bin_total{NS})";
        let live = format!(
            "clamp_min({counts} / on (feature) group_left sum by (feature) ({counts}), 1e-4)"
        );
        let reference =
            "clamp_min(max by (feature, bin) (slipway_runtime_feature_reference_share{NS}), 1e-4)";
        let psi =
            format!("max(sum by (feature) (({live} - {reference}) * ln({live} / {reference})))");
        let psi = number(&world, &psi).await?;
        ensure!((0.0..0.05).contains(&psi), "PSI {psi}");
        let sum = |name: &str| format!("sum(slipway_runtime_{name}{{NS}})");
        let (right, wrong) = (sum("expected_correct_total"), sum("expected_incorrect_total"));
        let expected = number(&world, &format!("{right} / ({right} + {wrong})")).await?;
        let labels = "sum(slipway_gateway_feedback_total{NS,result=~\"correct|incorrect\"})";
        let realised = "sum(slipway_gateway_feedback_total{NS,result=\"correct\"})";
        let realised = number(&world, &format!("{realised} / {labels}")).await?;
        ensure!((expected - realised).abs() < 0.05, "{expected} expected, {realised} by labels");
        eprintln!(
            "baseline: PSI {psi:.4}, accuracy {expected:.3} expected, {realised:.3} by labels"
        );

        // The next version with this version's baseline.
        world.apply(&watched(&world, "digits/v2.yaml", baseline)?).await?;
        let status = world.wait_aborted("digits", "v2").await?;
        let abort = status
            .rollout
            .as_ref()
            .and_then(|rollout| rollout.abort.clone())
            .context("no abort")?;
        ensure!(
            abort.reason == "ModelLoadFailed" && abort.message.contains("baseline"),
            "{abort:?}"
        );
        ensure!(
            revision_weights(&status).get(&stable) == Some(&1000),
            "{:?}",
            revision_weights(&status)
        );
        world.finish_load().await?;
        Ok(())
    })
    .await
}
