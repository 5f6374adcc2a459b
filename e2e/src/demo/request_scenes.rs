//! Scenes without a rollout: cached answers, and jobs with callbacks.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::scene_runner::{SceneRunner, print_heading};
use crate::world::{self, QueueBroker, TestWorld};

/// Number of different questions; each is asked once per round.
const QUESTIONS: usize = 50;
const ROUNDS: usize = 3;
/// Number of queued jobs.
const JOBS: usize = 30;

/// Results of the scene of cached answers, by round.
pub(super) struct CacheSceneResult {
    rounds: Vec<BTreeMap<String, usize>>,
}

/// Results of the scene of jobs.
pub(super) struct JobSceneResult {
    queued: usize,
    /// For callbacks with a verified signature: milliseconds from the 202 until the callback
    /// arrived, ascending.
    callback_millis: Vec<f64>,
    correct: usize,
}

/// Asks the same questions repeatedly; equal requests go to the same pod, whose cache has the
/// answer.
pub(super) async fn run_cache_scene(stage: &SceneRunner) -> anyhow::Result<CacheSceneResult> {
    let world = &stage.world;
    stage.deploy_first("cached", "06-caches.yaml").await?;
    let rows = read_rows(world)?;
    let url = format!("{}/v2/models/cached/infer", world.service_url("cached", 80).await?);
    println!("{:>8}  {:>6}  {:>6}  {:>6}  {:>9}", "round", "asked", "hits", "misses", "mean ms");
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let mut seen = BTreeMap::<String, usize>::new();
        let begun = Instant::now();
        for (_, row) in &rows {
            let answer = world.http.post(&url, Some("cached"), &world::infer_request(row)).await?;
            ensure!(answer.status.is_success(), "{answer:?}");
            *seen
                .entry(answer.header(slipway_contracts::headers::CACHE).to_owned())
                .or_default() += 1;
        }
        let mean = begun.elapsed().as_secs_f64() * 1e3 / rows.len() as f64;
        let of = |what: &str| seen.get(what).copied().unwrap_or(0);
        println!("{round:>8}  {:>6}  {:>6}  {:>6}  {mean:>9.2}", rows.len(), of("hit"), of("miss"));
        rounds.push(seen);
    }
    Ok(CacheSceneResult { rounds })
}

/// Queues jobs; workers run them and send callbacks to the load generator.
pub(super) async fn run_job_scene(stage: &SceneRunner) -> anyhow::Result<JobSceneResult> {
    let world = &stage.world;
    println!(
        "$ kubectl apply -f examples/queue-redis.yaml; kubectl create secret generic queue-redis …, callbacks …"
    );
    world.create_queue(QueueBroker::Redis).await?;
    let (callback, network) = world.callbacks_url().await?;
    stage.deploy_first_with("jobs", "07-jobs.yaml", "10.96.0.0/12", &network).await?;
    world.wait_deployment_ready("jobs-worker").await?;
    print_heading(&format!(
        "{JOBS} jobs, POST http://jobs/v2/models/jobs/jobs, to be called back at {callback}"
    ));
    let mut jobs = BTreeMap::new();
    let rows = read_rows(world)?;
    for (number, (label, row)) in rows.iter().cycle().take(JOBS).enumerate() {
        let id = world.submit_job("jobs", number, row, Some(&callback)).await?;
        jobs.insert(id, (jiff::Timestamp::now(), *label));
    }
    let id = jobs.keys().next().context("no job")?;
    println!(
        "$ curl http://jobs/v2/jobs/{id}\n{}",
        serde_json::to_string_pretty(&world.wait_job_succeeded("jobs", id).await?)?
    );
    let read_all = || async {
        let callbacks = world.callbacks().await.map_err(|error| error.to_string())?;
        let mut by_job = BTreeMap::new();
        for callback in callbacks {
            let job = callback.verify().map_err(|error| format!("{error:#}"))?;
            by_job
                .entry(job["id"].as_str().unwrap_or_default().to_owned())
                .or_insert((callback.received_at, job));
        }
        if by_job.len() >= jobs.len() {
            Ok(by_job)
        } else {
            Err(format!("{} of {} called back", by_job.len(), jobs.len()))
        }
    };
    let callbacks = world
        .cluster
        .wait_for(&world.namespace, "all callbacks", world::PODS_TIMEOUT, read_all)
        .await?;
    let mut shown = JobSceneResult { queued: jobs.len(), callback_millis: Vec::new(), correct: 0 };
    for (id, (queued, label)) in &jobs {
        let (received, job) =
            callbacks.get(id).with_context(|| format!("{id} was not called back"))?;
        shown.callback_millis.push(received.duration_since(*queued).as_secs_f64().max(0.0) * 1e3);
        shown.correct += usize::from(predicted_label(job) == Some(*label));
    }
    shown.callback_millis.sort_by(f64::total_cmp);
    Ok(shown)
}

/// The class in a job's result.
fn predicted_label(job: &Value) -> Option<i64> {
    let outputs = job["result"]["outputs"].as_array()?;
    outputs.iter().find(|it| it["name"] == "label")?["data"][0].as_i64()
}

/// Held-out digits: label and values.
fn read_rows(world: &TestWorld) -> anyhow::Result<Vec<(i64, Vec<f64>)>> {
    let text = world.example("digits/heldout.csv")?;
    let row = |line: &str| -> anyhow::Result<(i64, Vec<f64>)> {
        let (label, values) = line.split_once(',').context("no label")?;
        Ok((label.parse()?, values.split(',').map(str::parse).collect::<Result<_, _>>()?))
    };
    text.lines().skip(1).take(QUESTIONS).map(row).collect()
}

impl CacheSceneResult {
    /// The first round has no cache hits; later rounds do.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let hits: Vec<usize> =
            self.rounds.iter().map(|seen| seen.get("hit").copied().unwrap_or(0)).collect();
        ensure!(hits.first() == Some(&0), "hits before anything was asked: {:?}", self.rounds);
        ensure!(
            hits[1..].iter().all(|it| *it == QUESTIONS),
            "not all were kept: {:?}",
            self.rounds
        );
        Ok(())
    }
}

impl JobSceneResult {
    pub(super) fn print(&self) {
        let at = |share: f64| {
            self.callback_millis[((self.callback_millis.len() - 1) as f64 * share) as usize]
        };
        println!(
            "\n=== jobs: {} queued, {} called back with a verified signature, {} right; from 202 to callback p50 {:.0} ms, longest {:.0} ms",
            self.queued,
            self.callback_millis.len(),
            self.correct,
            at(0.5),
            at(1.0)
        );
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.queued == JOBS && self.callback_millis.len() == JOBS,
            "{} of {JOBS} called back",
            self.callback_millis.len()
        );
        // The model is a forest that is right for 96 % of the held-out rows.
        ensure!(self.correct * 10 >= JOBS * 8, "{} of {JOBS} right", self.correct);
        Ok(())
    }
}
