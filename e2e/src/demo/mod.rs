//! The demo: rolls a model out, rolls a worse one back, and switches blue-green, under a load that
//! accounts for every request.

mod request_scenes;
mod scene_runner;
mod table;

use std::time::Instant;

use anyhow::{Context, ensure};
use request_scenes::{CacheSceneResult, JobSceneResult};
use scene_runner::SceneRunner;
use slipway_cluster::cluster::ClusterHandle;
use slipway_crds::v1alpha1::RolloutOutcome;
use table::RolloutRow;

use crate::product::{self, PrometheusSource};
use crate::world::{self, TestWorld};

pub const NAMESPACE: &str = "slipway-demo";

/// Runs the demo; returns an error when one of its checks fails.
pub async fn run_demo(cluster: &ClusterHandle, rate: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    let prometheus = choose_prometheus(cluster);
    let from = match &prometheus {
        PrometheusSource::Url(url) | PrometheusSource::Login(url, _) => {
            format!("prometheus.url={url}")
        }
        PrometheusSource::Chart | PrometheusSource::BuiltChart => "prometheus.install=true".into(),
    };
    scene_runner::print_heading(&format!(
        "helm upgrade --install slipway-crds; helm upgrade --install slipway --set {from}"
    ));
    product::install_charts(cluster, &prometheus).await?;
    cluster
        .kubectl(["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"])
        .await?;
    cluster.kubectl(["create", "namespace", NAMESPACE]).await?;
    let world = TestWorld::new(cluster.clone(), NAMESPACE);
    world.prepare().await?;
    let stage = SceneRunner::new(world);
    let outcome = run_all_scenes(&stage, rate).await;
    if outcome.is_err() {
        eprintln!("{}", cluster.dump_state(NAMESPACE).await);
    }
    let (rows, kept, jobs) = outcome?;
    table::print_rollouts(&rows);
    let digits = stage.world.finish_load().await;
    let blue_green = stage.blue_green_world().finish_load().await;
    table::print_account("digits", &stage.world.account().await?, &stage.version_names());
    table::print_account(
        "digits-bg",
        &stage.blue_green_world().account().await?,
        &stage.version_names(),
    );
    jobs.print();
    check_rollouts(&rows)?;
    kept.check()?;
    jobs.check()?;
    digits.context("account of digits")?;
    blue_green.context("account of digits-bg")?;
    scene_runner::print_heading(&format!("all of it held; {} s", begun.elapsed().as_secs()));
    Ok(())
}

/// On a local cluster the chart installs Prometheus, as for a new user; on a foreign one it does
/// unless one is named.
fn choose_prometheus(cluster: &ClusterHandle) -> PrometheusSource {
    match cluster.is_foreign() {
        false => PrometheusSource::BuiltChart,
        true => cluster.prometheus_url().map_or(PrometheusSource::Chart, PrometheusSource::Url),
    }
}

async fn run_rollout_scenes(stage: &SceneRunner, rate: u32) -> anyhow::Result<Vec<RolloutRow>> {
    scene_runner::print_heading("version 1 of a classifier of handwritten digits: a shallow tree");
    stage.deploy_first("digits", "digits/v1.yaml").await?;
    scene_runner::print_heading(&format!(
        "the load generator replays held-out rows at {rate} requests/s through http://digits"
    ));
    stage.world.start_load("digits", rate).await?;
    let mut rows = Vec::new();
    scene_runner::print_heading(
        "version 2, a forest: better. 5 % -> 25 % -> 50 % -> 100 %, each step judged",
    );
    rows.push(stage.run_rollout("digits", "digits/v2.yaml", "v2").await?);
    scene_runner::print_heading("version 3 answers 200, fast, and wrong: only labels show it");
    rows.push(stage.run_rollout("digits", "digits/v3.yaml", "v3").await?);
    scene_runner::print_heading("version 4 is far too slow under load");
    rows.push(stage.run_rollout("digits", "digits/v4.yaml", "v4").await?);
    scene_runner::print_heading(
        "version 4 in another flavour: it fails on almost every second row",
    );
    rows.push(stage.run_rollout("digits", "digits/v4-errors.yaml", "v4-errors").await?);
    scene_runner::print_heading(
        "the same model as blue-green: preview, switch, blue kept warm, abort back to blue",
    );
    stage.deploy_first("digits-bg", "digits/blue-green-v1.yaml").await?;
    stage.blue_green_world().start_load("digits-bg", rate / 4).await?;
    rows.push(stage.abort_blue_green("digits/blue-green-v2.yaml", "v2").await?);
    Ok(rows)
}

async fn run_all_scenes(
    stage: &SceneRunner,
    rate: u32,
) -> anyhow::Result<(Vec<RolloutRow>, CacheSceneResult, JobSceneResult)> {
    let rows = run_rollout_scenes(stage, rate).await?;
    scene_runner::print_heading(
        "answers are kept: the same questions again and again, two pods with a Redis beside each",
    );
    let kept = request_scenes::run_cache_scene(stage).await?;
    scene_runner::print_heading(
        "jobs: queued in a Redis, run by workers in batches, told at a URL and by a signed callback",
    );
    let jobs = request_scenes::run_job_scene(stage).await?;
    Ok((rows, kept, jobs))
}

/// Checks the result of each rollout.
fn check_rollouts(rows: &[RolloutRow]) -> anyhow::Result<()> {
    let expected = [
        ("v2", RolloutOutcome::Promoted),
        ("v3", RolloutOutcome::RolledBack),
        ("v4", RolloutOutcome::RolledBack),
        ("v4-errors", RolloutOutcome::RolledBack),
        ("v2", RolloutOutcome::Aborted),
    ];
    ensure!(rows.len() == expected.len(), "{} rollouts instead of {}", rows.len(), expected.len());
    for (row, (version, outcome)) in rows.iter().zip(expected) {
        let as_expected = row.record.version == version && row.record.outcome == outcome;
        ensure!(as_expected, "{version} should be {}: {}", to_json(&outcome), to_json(&row.record));
        for step in &row.record.steps {
            let Some(observed) = step.observed_permille else { continue };
            ensure!(
                (observed - step.weight_permille).abs() <= 30,
                "{version}: asked and observed differ: {}",
                to_json(step)
            );
        }
        if outcome != RolloutOutcome::Promoted {
            let late = row.after_abort.context("nothing was measured after the abort")?;
            ensure!(
                late.as_secs_f64() < 1.0,
                "{version}: {late:?} from the abort to the last request at it"
            );
        }
    }
    Ok(())
}

/// Formats a value as `kubectl get` would show it.
fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A status, for the message of a wait that times out.
fn describe_status(status: &slipway_crds::v1alpha1::ModelDeploymentStatus) -> String {
    world::describe_status(status)
}
