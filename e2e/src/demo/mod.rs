//! The demo: a model is rolled out, rolled back when it is worse, and switched blue-green, under a load that accounts for every request.

mod asked;
mod stage;
mod table;

use std::time::Instant;

use anyhow::{Context, ensure};
use slipway_crds::v1alpha1::RolloutOutcome;

use crate::cluster::Cluster;
use crate::product::{self, Prometheus};
use crate::world::{self, World};
use asked::{Jobs, Kept};
use stage::Stage;
use table::Row;

/// Namespace of the demo.
pub const NAMESPACE: &str = "slipway-demo";

/// Runs the demo; an error when anything that it claims does not hold.
pub async fn run(cluster: &Cluster, rate: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    let prometheus = prometheus(cluster);
    let from = match &prometheus {
        Prometheus::Url(url) | Prometheus::Login(url, _) => format!("prometheus.url={url}"),
        Prometheus::Chart | Prometheus::BuiltChart => "prometheus.install=true".into(),
    };
    stage::say(&format!("helm upgrade --install slipway-crds; helm upgrade --install slipway --set {from}"));
    product::install(cluster, &prometheus).await?;
    cluster.kubectl(["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"]).await?;
    cluster.kubectl(["create", "namespace", NAMESPACE]).await?;
    let world = World::new(cluster.clone(), NAMESPACE);
    world.prepare().await?;
    let stage = Stage::new(world);
    let outcome = all_scenes(&stage, rate).await;
    if outcome.is_err() {
        eprintln!("{}", cluster.dump(NAMESPACE).await);
    }
    let (rows, kept, jobs) = outcome?;
    table::print(&rows);
    let digits = stage.world.settle().await;
    let blue_green = stage.blue_green().settle().await;
    table::print_account("digits", &stage.world.account().await?, &stage.names());
    table::print_account("digits-bg", &stage.blue_green().account().await?, &stage.names());
    jobs.print();
    check(&rows)?;
    kept.check()?;
    jobs.check()?;
    digits.context("account of digits")?;
    blue_green.context("account of digits-bg")?;
    stage::say(&format!("all of it held; {} s", begun.elapsed().as_secs()));
    Ok(())
}

/// On a cluster of ours the chart brings Prometheus, as on a newcomer's; elsewhere it does unless there is one.
fn prometheus(cluster: &Cluster) -> Prometheus {
    match cluster.is_foreign() {
        false => Prometheus::BuiltChart,
        true => cluster.prometheus_url().map_or(Prometheus::Chart, Prometheus::Url),
    }
}

async fn rollouts(stage: &Stage, rate: u32) -> anyhow::Result<Vec<Row>> {
    stage::say("version 1 of a classifier of handwritten digits: a shallow tree");
    stage.first("digits", "digits/v1.yaml").await?;
    stage::say(&format!("the load generator replays held-out rows at {rate} requests/s through http://digits"));
    stage.world.load("digits", rate).await?;
    let mut rows = Vec::new();
    stage::say("version 2, a forest: better. 5 % -> 25 % -> 50 % -> 100 %, each step judged");
    rows.push(stage.rollout("digits", "digits/v2.yaml", "v2").await?);
    stage::say("version 3 answers 200, fast, and wrong: only labels show it");
    rows.push(stage.rollout("digits", "digits/v3.yaml", "v3").await?);
    stage::say("version 4 is far too slow under load");
    rows.push(stage.rollout("digits", "digits/v4.yaml", "v4").await?);
    stage::say("version 4 in another flavour: it fails on almost every second row");
    rows.push(stage.rollout("digits", "digits/v4-errors.yaml", "v4-errors").await?);
    stage::say("the same model as blue-green: preview, switch, blue kept warm, abort back to blue");
    stage.first("digits-bg", "digits/blue-green-v1.yaml").await?;
    stage.blue_green().load("digits-bg", rate / 4).await?;
    rows.push(stage.blue_green_back("digits/blue-green-v2.yaml", "v2").await?);
    Ok(rows)
}

async fn all_scenes(stage: &Stage, rate: u32) -> anyhow::Result<(Vec<Row>, Kept, Jobs)> {
    let rows = rollouts(stage, rate).await?;
    stage::say("answers are kept: the same questions again and again, two pods with a Redis beside each");
    let kept = asked::kept(stage).await?;
    stage::say("jobs: queued in a Redis, run by workers in batches, told at a URL and by a signed callback");
    let jobs = asked::jobs(stage).await?;
    Ok((rows, kept, jobs))
}

/// What the demo claims of each rollout.
fn check(rows: &[Row]) -> anyhow::Result<()> {
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
        ensure!(as_expected, "{version} should be {}: {}", json(&outcome), json(&row.record));
        for step in &row.record.steps {
            let Some(observed) = step.observed_permille else { continue };
            ensure!(
                (observed - step.weight_permille).abs() <= 30,
                "{version}: asked and observed differ: {}",
                json(step)
            );
        }
        if outcome != RolloutOutcome::Promoted {
            let late = row.after_abort.context("nothing was measured after the abort")?;
            ensure!(late.as_secs_f64() < 1.0, "{version}: {late:?} from the abort to the last request at it");
        }
    }
    Ok(())
}

/// As `kubectl get` would show it.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What a wait complains of.
fn brief(status: &slipway_crds::v1alpha1::ModelDeploymentStatus) -> String {
    world::brief(status)
}
