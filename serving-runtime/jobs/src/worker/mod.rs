//! Takes jobs, runs them, stores what came out, and makes the callbacks.
//!
//! Many jobs are predicted side by side, and their rows merge into batches in the model's own
//! queue; a slow one holds up no other. A job that was handed out before may be the one that its
//! last worker died of, so it runs alone: if it kills this one too, it takes no other along, and
//! after the most deliveries that there may be it goes to the dead-letter stream without being run.

mod delivery;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use slipway_runtime_predict::predictor::Predictor;
use slipway_runtime_queue::queue::{ClaimedJob, JobLease, JobQueue as _, QueueError, RetryRequest};
use tokio::sync::watch;

use crate::args::WorkerArgs;
use crate::service::{JobService, OUTAGE_BACKOFF, is_stopping, sleep_or_stop};

/// Between two looks at an empty queue.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// The same when there was something: there may be more, and a little later it is more at once.
const BUSY_POLL: Duration = Duration::from_millis(10);
/// Every so many turns the lowest priority comes first, so that it is not starved.
const FAIR_EVERY: u64 = 8;

/// One worker.
#[derive(Debug)]
pub struct JobWorker {
    predictor: Arc<Predictor>,
    jobs: Arc<JobService>,
    args: WorkerArgs,
    consumer: String,
    stop: watch::Receiver<bool>,
    /// What is held and has not been settled.
    held_leases: Mutex<Vec<HeldLease>>,
    /// Locked while jobs are taken and not yet held.
    claim_lock: tokio::sync::Mutex<()>,
}

impl JobWorker {
    /// A worker that runs until `stop` says true.
    pub fn new(
        predictor: Arc<Predictor>,
        jobs: Arc<JobService>,
        args: WorkerArgs,
        consumer: String,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            predictor,
            jobs,
            args,
            consumer,
            stop,
            held_leases: Mutex::default(),
            claim_lock: tokio::sync::Mutex::default(),
        }
    }

    /// Works until told to stop, and then gives back what it could not finish in time.
    pub async fn run(&self) {
        // Whoever died without a word is still in the group.
        let _ = self.jobs.queue.leave(&self.consumer).await;
        tokio::select! {
            () = self.dispatch_loop() => {}
            () = self.renew_leases() => {}
            () = self.wait_for_drain() => {}
        }
        let left = std::mem::take(&mut *self.held_leases.lock());
        for HeldLease { lease, since } in &left {
            let again = RetryRequest { delay: Duration::ZERO, error: String::new(), counts: false };
            let outcome = match self.jobs.queue.retry(&self.consumer, lease, &again).await {
                Ok(true) => "released",
                // Its lease runs out, or has.
                Ok(false) | Err(_) => "lost",
            };
            tracing::info!(job = lease.id, outcome, "given back");
            self.jobs.metrics.record_delivery(outcome, since.elapsed());
        }
        if let Err(error) = self.jobs.queue.leave(&self.consumer).await {
            tracing::debug!(%error, "cannot leave the queue");
        }
    }

    /// Keeps the worker full until told to stop; ends when nothing runs any more.
    async fn dispatch_loop(&self) {
        let lease = self.jobs.queue.options().lease;
        let look_for_lost = (lease / 4).clamp(Duration::from_millis(100), Duration::from_secs(5));
        let (mut flying, mut lone) = (FuturesUnordered::new(), VecDeque::<ClaimedJob>::new());
        let (mut turn, mut failures, mut looked) = (0_u64, 0_u32, None::<Instant>);
        loop {
            if is_stopping(&self.stop) {
                // What waits to be alone is given back.
                while flying.next().await.is_some() {}
                return;
            }
            if flying.is_empty()
                && let Some(claimed) = lone.pop_front()
            {
                self.run_one(claimed).await;
                continue;
            }
            let due = looked.is_none_or(|at: Instant| at.elapsed() >= look_for_lost);
            let free = if !lone.is_empty() {
                0
            } else {
                usize::from(self.args.max_jobs).saturating_sub(flying.len())
            };
            turn += 1;
            let wait = match self.claim_jobs(free, due, turn).await {
                Ok(taken) => {
                    failures = 0;
                    if due && taken.lost.is_none() {
                        looked = Some(Instant::now());
                    }
                    let some = !taken.fresh.is_empty();
                    let (new, again) = taken
                        .fresh
                        .into_iter()
                        .partition::<Vec<_>, _>(|claimed| claimed.deliveries <= 1);
                    lone.extend(taken.lost.into_iter().chain(again));
                    flying.extend(new.into_iter().map(|claimed| self.run_one(claimed)));
                    if some { BUSY_POLL } else { IDLE_POLL }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(%error, failures, "cannot take jobs");
                    OUTAGE_BACKOFF.random_delay(failures)
                }
            };
            self.drive_running(&mut flying, !lone.is_empty(), wait).await;
        }
    }

    /// Lets what runs go on: all of it to its end when a job waits to be alone, or else for `wait`,
    /// or until half of the room is free, so that jobs are taken in batches.
    async fn drive_running<F: Future<Output = ()>>(
        &self,
        flying: &mut FuturesUnordered<F>,
        alone: bool,
        wait: Duration,
    ) {
        if alone {
            while flying.next().await.is_some() {}
            return;
        }
        let half = usize::from(self.args.max_jobs) / 2;
        let crowded = flying.len() > half;
        let mut timer = std::pin::pin!(sleep_or_stop(&self.stop, wait));
        loop {
            tokio::select! {
                () = &mut timer => return,
                Some(()) = flying.next(), if !flying.is_empty() => {
                    if crowded && flying.len() <= half {
                        return;
                    }
                }
            }
        }
    }

    /// Takes jobs: what a worker lost, to be run alone, if it is time to look for that; or else
    /// what is new.
    async fn claim_jobs(
        &self,
        free: usize,
        look_for_lost: bool,
        turn: u64,
    ) -> Result<ClaimedBatch, QueueError> {
        if free == 0 {
            return Ok(ClaimedBatch { fresh: Vec::new(), lost: None });
        }
        let queue = &self.jobs.queue;
        // Whoever ends the worker waits for this, so that nothing is taken and not held.
        let _taking = self.claim_lock.lock().await;
        let lost = if look_for_lost { queue.reclaim(&self.consumer).await? } else { None };
        let fresh = match lost {
            Some(_) => Vec::new(),
            None => queue.claim(&self.consumer, free, turn.is_multiple_of(FAIR_EVERY)).await?,
        };
        let taken = ClaimedBatch { fresh, lost };
        let all = taken.fresh.iter().chain(&taken.lost);
        let held: Vec<_> =
            all.map(|c| HeldLease { lease: c.lease.clone(), since: Instant::now() }).collect();
        self.jobs.metrics.add_running(held.len());
        self.held_leases.lock().extend(held);
        Ok(taken)
    }

    /// Renews the leases of what is held; never ends.
    async fn renew_leases(&self) {
        loop {
            tokio::time::sleep(self.jobs.queue.options().lease / 3).await;
            let held: Vec<JobLease> =
                self.held_leases.lock().iter().map(|held| held.lease.clone()).collect();
            if let Err(error) = self.jobs.queue.extend(&self.consumer, &held).await {
                tracing::warn!(%error, "cannot renew leases; others may run the same jobs");
            }
        }
    }

    /// Ends when the time to end has come.
    async fn wait_for_drain(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stop| *stop).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(self.args.worker_drain_seconds)).await;
        drop(self.claim_lock.lock().await);
    }

    async fn run_one(&self, claimed: ClaimedJob) {
        let begun = Instant::now();
        let outcome = match self.process_job(&claimed).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // The lease runs out, and another delivery settles it.
                tracing::warn!(%error, job = claimed.lease.id, "cannot settle a job");
                "lost"
            }
        };
        let same = |lease: &JobLease| {
            (&lease.entry, lease.priority) == (&claimed.lease.entry, claimed.lease.priority)
        };
        self.held_leases.lock().retain(|held| !same(&held.lease));
        self.jobs.metrics.record_delivery(outcome, begun.elapsed());
    }
}

/// What was taken.
struct ClaimedBatch {
    fresh: Vec<ClaimedJob>,
    lost: Option<ClaimedJob>,
}

/// What is held, and since when.
#[derive(Debug)]
struct HeldLease {
    lease: JobLease,
    since: Instant,
}
