//! Scenes without a rollout: answers that are kept, and jobs that are called back.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::stage::{Stage, say};
use crate::world::{self, Broker, World};

/// Different questions; each is asked as often as there are rounds.
const QUESTIONS: usize = 50;
const ROUNDS: usize = 3;
/// Jobs that are queued.
const JOBS: usize = 30;

/// What the scene of kept answers showed, by round.
pub(super) struct Kept {
    rounds: Vec<BTreeMap<String, usize>>,
}

/// What the scene of jobs showed.
pub(super) struct Jobs {
    queued: usize,
    /// Of callbacks with a verified signature: milliseconds from the 202 until it arrived, ascending.
    called_back: Vec<f64>,
    correct: usize,
}

/// Asks the same questions again and again; equal ones go to the same pod, whose cache has the answer.
pub(super) async fn kept(stage: &Stage) -> anyhow::Result<Kept> {
    let world = &stage.world;
    stage.first("cached", "06-caches.yaml").await?;
    let rows = rows(world)?;
    let url = format!("{}/v2/models/cached/infer", world.service("cached", 80).await?);
    println!("{:>8}  {:>6}  {:>6}  {:>6}  {:>9}", "round", "asked", "hits", "misses", "mean ms");
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let mut seen = BTreeMap::<String, usize>::new();
        let begun = Instant::now();
        for (_, row) in &rows {
            let answer = world.http.post(&url, Some("cached"), &world::question(row)).await?;
            ensure!(answer.status.is_success(), "{answer:?}");
            *seen.entry(answer.header("x-slipway-cache").to_owned()).or_default() += 1;
        }
        let mean = begun.elapsed().as_secs_f64() * 1e3 / rows.len() as f64;
        let of = |what: &str| seen.get(what).copied().unwrap_or(0);
        println!("{round:>8}  {:>6}  {:>6}  {:>6}  {mean:>9.2}", rows.len(), of("hit"), of("miss"));
        rounds.push(seen);
    }
    Ok(Kept { rounds })
}

/// Queues jobs; workers run them and call the load generator back.
pub(super) async fn jobs(stage: &Stage) -> anyhow::Result<Jobs> {
    let world = &stage.world;
    println!("$ kubectl apply -f examples/queue-redis.yaml; kubectl create secret generic queue-redis …, callbacks …");
    world.queue(Broker::Redis).await?;
    let (callback, network) = world.callbacks_url().await?;
    stage.first_with("jobs", "07-jobs.yaml", "10.96.0.0/12", &network).await?;
    world.deployment_ready("jobs-worker").await?;
    say(&format!("{JOBS} jobs, POST http://jobs/v2/models/jobs/jobs, to be called back at {callback}"));
    let mut jobs = BTreeMap::new();
    let rows = rows(world)?;
    for (number, (label, row)) in rows.iter().cycle().take(JOBS).enumerate() {
        let id = world.submit("jobs", number, row, Some(&callback)).await?;
        jobs.insert(id, (jiff::Timestamp::now(), *label));
    }
    let id = jobs.keys().next().context("no job")?;
    println!("$ curl http://jobs/v2/jobs/{id}\n{}", serde_json::to_string_pretty(&world.succeeded("jobs", id).await?)?);
    let told = || async {
        let callbacks = world.callbacks().await.map_err(|error| error.to_string())?;
        let mut told = BTreeMap::new();
        for callback in callbacks {
            let job = callback.verified().map_err(|error| format!("{error:#}"))?;
            told.entry(job["id"].as_str().unwrap_or_default().to_owned()).or_insert((callback.received_at, job));
        }
        if told.len() >= jobs.len() { Ok(told) } else { Err(format!("{} of {} called back", told.len(), jobs.len())) }
    };
    let told = world.cluster.wait_for(&world.namespace, "all callbacks", world::PODS, told).await?;
    let mut shown = Jobs { queued: jobs.len(), called_back: Vec::new(), correct: 0 };
    for (id, (queued, label)) in &jobs {
        let (received, job) = told.get(id).with_context(|| format!("{id} was not called back"))?;
        shown.called_back.push(received.duration_since(*queued).as_secs_f64().max(0.0) * 1e3);
        shown.correct += usize::from(answer(job) == Some(*label));
    }
    shown.called_back.sort_by(f64::total_cmp);
    Ok(shown)
}

/// The class that a job's result names.
fn answer(job: &Value) -> Option<i64> {
    let outputs = job["result"]["outputs"].as_array()?;
    outputs.iter().find(|it| it["name"] == "label")?["data"][0].as_i64()
}

/// Held-out digits: label and values.
fn rows(world: &World) -> anyhow::Result<Vec<(i64, Vec<f64>)>> {
    let text = world.example("digits/heldout.csv")?;
    let row = |line: &str| -> anyhow::Result<(i64, Vec<f64>)> {
        let (label, values) = line.split_once(',').context("no label")?;
        Ok((label.parse()?, values.split(',').map(str::parse).collect::<Result<_, _>>()?))
    };
    text.lines().skip(1).take(QUESTIONS).map(row).collect()
}

impl Kept {
    /// The first time nobody knows; afterwards the cache does.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let hits: Vec<usize> = self.rounds.iter().map(|seen| seen.get("hit").copied().unwrap_or(0)).collect();
        ensure!(hits.first() == Some(&0), "hits before anything was asked: {:?}", self.rounds);
        ensure!(hits[1..].iter().all(|it| *it == QUESTIONS), "not all were kept: {:?}", self.rounds);
        Ok(())
    }
}

impl Jobs {
    pub(super) fn print(&self) {
        let at = |share: f64| self.called_back[((self.called_back.len() - 1) as f64 * share) as usize];
        println!(
            "\n=== jobs: {} queued, {} called back with a verified signature, {} right; from 202 to callback p50 {:.0} ms, longest {:.0} ms",
            self.queued,
            self.called_back.len(),
            self.correct,
            at(0.5),
            at(1.0)
        );
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.queued == JOBS && self.called_back.len() == JOBS,
            "{} of {JOBS} called back",
            self.called_back.len()
        );
        // A forest that is right for 96 % of the rows that it has never seen.
        ensure!(self.correct * 10 >= JOBS * 8, "{} of {JOBS} right", self.correct);
        Ok(())
    }
}
