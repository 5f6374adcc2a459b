//! Takes jobs from the queue, runs them, stores their results and sends the callbacks.
//!
//! Many jobs are predicted concurrently, and their rows are merged into batches in the model's own
//! queue, so a slow job does not delay others. A job that was delivered before may have crashed its
//! last worker, so it runs alone: if it crashes this worker too, no other job is lost. After the
//! largest number of deliveries it goes to the dead-letter stream without being run.

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

/// Interval between queries of an empty queue.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// The same after jobs were found: more may follow, and a short delay lets more of them arrive to
/// be taken together.
const BUSY_POLL: Duration = Duration::from_millis(10);
/// Every this many turns the lowest priority comes first, so that it does not starve.
const FAIR_EVERY: u64 = 8;

#[derive(Debug)]
pub struct JobWorker {
    predictor: Arc<Predictor>,
    jobs: Arc<JobService>,
    args: WorkerArgs,
    consumer: String,
    stop: watch::Receiver<bool>,
    /// Leases of jobs that are not yet settled.
    held_leases: Mutex<Vec<HeldLease>>,
    /// Locked while jobs are taken and not yet added to `held_leases`.
    claim_lock: tokio::sync::Mutex<()>,
}

impl JobWorker {
    /// Creates a worker that runs until `stop` is true.
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

    /// Works until `stop` is set, and then returns the jobs that it could not finish in time.
    pub async fn run(&self) {
        // Removes consumers that crashed, which are still in the group.
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
                // Its lease expires, or has expired.
                Ok(false) | Err(_) => "lost",
            };
            tracing::info!(job = lease.id, outcome, "given back");
            self.jobs.metrics.record_delivery(outcome, since.elapsed());
        }
        if let Err(error) = self.jobs.queue.leave(&self.consumer).await {
            tracing::debug!(%error, "cannot leave the queue");
        }
    }

    /// Keeps the worker busy until `stop` is set; ends when no job runs any more.
    async fn dispatch_loop(&self) {
        let lease = self.jobs.queue.options().lease;
        let look_for_lost = (lease / 4).clamp(Duration::from_millis(100), Duration::from_secs(5));
        let (mut flying, mut lone) = (FuturesUnordered::new(), VecDeque::<ClaimedJob>::new());
        let (mut turn, mut failures, mut looked) = (0_u64, 0_u32, None::<Instant>);
        loop {
            if is_stopping(&self.stop) {
                // Jobs that wait to run alone are returned to the queue by `run`.
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

    /// Drives the running jobs: to the end of all of them if a job waits to run alone; else for
    /// `wait`, or until half of the capacity is free, so that several jobs are taken at once.
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

    /// Takes a job that another worker lost, to be run alone, if it is time to look for one;
    /// otherwise takes new jobs.
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
        // `wait_for_drain` takes this lock too, so that every job that was taken is in
        // `held_leases`.
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

    /// Renews the leases of held jobs; never returns.
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

    /// Returns when the time to drain is over.
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
                // The lease expires, and another delivery settles the job.
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

/// Jobs that were taken.
struct ClaimedBatch {
    fresh: Vec<ClaimedJob>,
    lost: Option<ClaimedJob>,
}

/// A held lease, and when it was taken.
#[derive(Debug)]
struct HeldLease {
    lease: JobLease,
    since: Instant,
}
