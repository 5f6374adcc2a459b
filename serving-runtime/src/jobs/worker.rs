//! Takes jobs, runs them, stores what came out, and makes the callbacks.
//!
//! Jobs are taken in rounds: those of one round are predicted side by side, and their rows merge into batches in the model's own queue. A job
//! that was handed out before may be the one that its last worker died of, so it runs alone: if it kills this one too, it takes no other
//! along, and after the most deliveries that there may be it goes to the dead-letter stream without being run.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::watch;

use super::backoff::Backoff;
use super::callback::Caller;
use super::job::Job;
use super::queue::{Again, Called, Claimed, End, Lease, Queue, QueueError, Start, Status};
use super::{Jobs, WorkerArgs, submit};
use crate::error::ApiError;
use crate::predict;
use crate::protocol;
use crate::server::App;

/// Between two looks at an empty queue.
const IDLE: Duration = Duration::from_millis(100);
/// Every so many rounds the lowest priority comes first, so that it is not starved.
const FAIR_EVERY: u64 = 8;
/// Waits while the queue does not answer.
const DOWN: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(5) };
/// Waits before another attempt at a job; the lease bounds them too.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(300) };
/// Callbacks in flight at once.
const CALLS: usize = 16;
/// Bytes of an error that are stored.
const MAX_ERROR: usize = 2048;

/// How one delivery went.
enum Went {
    Ended(End),
    Again(Again),
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    app: Arc<App>,
    jobs: Arc<Jobs>,
    args: WorkerArgs,
    consumer: String,
    stop: watch::Receiver<bool>,
    /// What is held and has not been settled.
    held: Mutex<Vec<Lease>>,
}

impl Worker {
    /// A worker that runs until `stop` says true.
    pub fn new(
        app: Arc<App>,
        jobs: Arc<Jobs>,
        args: WorkerArgs,
        consumer: String,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { app, jobs, args, consumer, stop, held: Mutex::default() }
    }

    /// Works until told to stop, and then gives back what it could not finish in time.
    pub async fn run(&self) {
        let lease = self.jobs.queue.options().lease;
        let look_for_lost = (lease / 4).clamp(Duration::from_millis(100), Duration::from_secs(5));
        let (mut round, mut failures, mut looked) = (0_u64, 0_u32, None::<Instant>);
        while !stopping(&self.stop) {
            round += 1;
            let due = looked.is_none_or(|at| at.elapsed() >= look_for_lost);
            match self.turn(round, due).await {
                Ok(Turn { took, lost }) => {
                    failures = 0;
                    if due && !lost {
                        looked = Some(Instant::now());
                    }
                    if !took {
                        pause(&self.stop, IDLE).await;
                    }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(%error, failures, "cannot take jobs");
                    pause(&self.stop, DOWN.jittered(failures)).await;
                }
            }
        }
        if let Err(error) = self.jobs.queue.leave(&self.consumer).await {
            tracing::debug!(%error, "cannot leave the queue");
        }
    }

    async fn turn(&self, round: u64, look_for_lost: bool) -> Result<Turn, QueueError> {
        let queue = &self.jobs.queue;
        let lost = if look_for_lost { queue.reclaim(&self.consumer).await? } else { None };
        let lost = match lost {
            Some(claimed) => {
                self.round(vec![claimed]).await;
                true
            }
            None => false,
        };
        if stopping(&self.stop) {
            return Ok(Turn { took: true, lost });
        }
        let most = usize::from(self.args.max_jobs);
        let fresh = queue.claim(&self.consumer, most, round.is_multiple_of(FAIR_EVERY)).await?;
        let took = lost || !fresh.is_empty();
        self.round(fresh).await;
        Ok(Turn { took, lost })
    }

    /// Runs some jobs side by side. When the worker must end before they do, they are given back.
    async fn round(&self, claimed: Vec<Claimed>) {
        if claimed.is_empty() {
            return;
        }
        self.app.metrics.jobs.taken(claimed.len());
        *self.lock() = claimed.iter().map(|c| c.lease.clone()).collect();
        let begun = Instant::now();
        let work = join_all(claimed.into_iter().map(|c| self.one(c)));
        tokio::select! {
            _ = work => {}
            () = self.keep() => {}
            () = self.drained() => {}
        }
        let left = std::mem::take(&mut *self.lock());
        for lease in &left {
            let again = Again { delay: Duration::ZERO, error: String::new(), counts: false };
            let outcome = match self.jobs.queue.retry(&self.consumer, lease, &again).await {
                Ok(true) => "released",
                // Its lease runs out, or has.
                Ok(false) | Err(_) => "lost",
            };
            tracing::info!(job = lease.id, outcome, "given back");
            self.app.metrics.jobs.ended(outcome, begun.elapsed());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Lease>> {
        // A list of names is whole whoever panicked.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the leases of what is held; never ends.
    async fn keep(&self) {
        loop {
            tokio::time::sleep(self.jobs.queue.options().lease / 3).await;
            let held = self.lock().clone();
            if let Err(error) = self.jobs.queue.extend(&self.consumer, &held).await {
                tracing::warn!(%error, "cannot renew leases; others may run the same jobs");
            }
        }
    }

    /// Ends when the time to end has come.
    async fn drained(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stop| *stop).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(self.args.worker_drain_seconds)).await;
    }

    async fn one(&self, claimed: Claimed) {
        let begun = Instant::now();
        let outcome = match self.settle(&claimed).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // The lease runs out, and another delivery settles it.
                tracing::warn!(%error, job = claimed.lease.id, "cannot settle a job");
                "lost"
            }
        };
        self.lock().retain(|lease| lease.entry != claimed.lease.entry || lease.priority != claimed.lease.priority);
        self.app.metrics.jobs.ended(outcome, begun.elapsed());
    }

    async fn settle(&self, claimed: &Claimed) -> Result<&'static str, QueueError> {
        let mut lease = claimed.lease.clone();
        let job = match Job::parse(&claimed.payload, self.args.serve.queue.max_job_bytes) {
            Ok(job) => job,
            Err(error) => return self.finish(&lease, end(Status::Dead, error, None, &claimed.payload)).await,
        };
        if !job.id.is_empty() {
            lease.id.clone_from(&job.id);
        }
        let start = self.jobs.queue.start(&lease, &job, claimed.deliveries, claimed.payload.len()).await?;
        let went = match start {
            Start::Duplicate => return Ok("duplicate"),
            Start::Expired => {
                Went::Ended(end(Status::Expired, "the deadline passed before it was begun".into(), None, &[]))
            }
            Start::Dead => {
                let error = format!(
                    "handed out {} times without an end; it may be what its workers died of",
                    claimed.deliveries - 1
                );
                Went::Ended(end(Status::Dead, error, None, &claimed.payload))
            }
            Start::Run => self.attempt(&job, claimed).await,
        };
        match went {
            Went::Ended(end) => self.finish(&lease, End { callback_url: self.callback(&job), ..end }).await,
            Went::Again(again) => {
                let given_back = self.persist(|| self.jobs.queue.retry(&self.consumer, &lease, &again)).await?;
                Ok(if given_back { "retried" } else { "lost" })
            }
        }
    }

    /// The job's callback, if it may be made at all.
    fn callback(&self, job: &Job) -> Option<String> {
        job.callback_url.clone().filter(|url| self.jobs.allow.check(url).is_ok())
    }

    async fn finish(&self, lease: &Lease, end: End) -> Result<&'static str, QueueError> {
        let first = self.persist(|| self.jobs.queue.finish(lease, &end)).await?;
        if end.status == Status::Dead {
            tracing::error!(job = lease.id, error = end.error, "dead-letter");
        }
        Ok(if first { end.status.name() } else { "duplicate" })
    }

    /// A result is worth some patience: the work is done.
    async fn persist<T, F: Future<Output = Result<T, QueueError>>>(
        &self,
        write: impl Fn() -> F,
    ) -> Result<T, QueueError> {
        let until = Instant::now() + self.jobs.queue.options().lease;
        let mut failures = 0;
        loop {
            match write().await {
                Err(error) if Instant::now() < until => {
                    failures += 1;
                    tracing::debug!(%error, failures, "not stored yet");
                    tokio::time::sleep(DOWN.jittered(failures)).await;
                }
                answer => return answer,
            }
        }
    }

    /// One attempt at a job that is registered as running.
    async fn attempt(&self, job: &Job, claimed: &Claimed) -> Went {
        match self.predict(job).await {
            Ok((result, version)) => {
                Went::Ended(End { result, version, ..end(Status::Succeeded, String::new(), None, &[]) })
            }
            // Not the job's fault.
            Err(ApiError::Busy(_) | ApiError::Unavailable(_)) => Went::Again(self.again(claimed, String::new(), false)),
            Err(error @ (ApiError::Internal(_) | ApiError::Deadline(_))) => {
                let error = error.to_string();
                if claimed.deliveries >= self.args.serve.queue.job_max_deliveries {
                    Went::Ended(end(Status::Dead, error, None, &claimed.payload))
                } else {
                    Went::Again(self.again(claimed, error, true))
                }
            }
            Err(error) => Went::Ended(end(Status::Failed, error.to_string(), None, &[])),
        }
    }

    fn again(&self, claimed: &Claimed, mut error: String, counts: bool) -> Again {
        truncate(&mut error);
        Again { delay: RETRY.jittered(claimed.deliveries).min(self.jobs.queue.options().lease), error, counts }
    }

    async fn predict(&self, job: &Job) -> Result<(Vec<u8>, String), ApiError> {
        let app = self.app.as_ref();
        if let Some(url) = &job.callback_url {
            self.jobs.allow.check(url).map_err(ApiError::BadRequest)?;
        }
        let model = app.models.get(&job.model_id, job.pinned_version()).map_err(|error| match error {
            // It was there when the job came, or the producer's own entry never was for us.
            ApiError::NotFound(text) => ApiError::NotFound(format!(
                "{text}; send jobs without a version, or as `latest`, to have whichever serves"
            )),
            other => other,
        })?;
        let mut request = submit::request(app, &model, job.data.get())?;
        let deadline = Instant::now() + Duration::from_secs(self.args.job_timeout_seconds);
        let inputs = std::mem::take(&mut request.inputs);
        let answer = tokio::time::timeout_at(deadline.into(), predict::predict(app, &model, inputs, deadline));
        let late = || ApiError::Deadline(u128::from(self.args.job_timeout_seconds) * 1000);
        let prediction = answer.await.map_err(|_| late())??;
        let names = (model.name.as_str(), model.version.as_str());
        let body = protocol::write(names, &model.signature, &request, &prediction.outputs, Some(&prediction.id))?;
        let most = self.args.max_result_bytes;
        if body.bytes.len() > most {
            return Err(ApiError::bad(format!(
                "the result has {} bytes; send fewer rows, ask for fewer outputs, or raise --max-result-bytes ({most})",
                body.bytes.len()
            )));
        }
        Ok((body.bytes, model.version.clone()))
    }
}

/// What a turn did.
struct Turn {
    took: bool,
    lost: bool,
}

fn end(status: Status, mut error: String, callback_url: Option<String>, payload: &[u8]) -> End {
    truncate(&mut error);
    End { status, result: Vec::new(), error, version: String::new(), callback_url, payload: payload.to_vec() }
}

fn truncate(text: &mut String) {
    let mut at = MAX_ERROR.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.truncate(at);
}

fn stopping(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow()
}

/// Waits, or not any longer when it is time to stop.
async fn pause(stop: &watch::Receiver<bool>, time: Duration) {
    let mut stop = stop.clone();
    let _ = tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await;
}

/// Makes callbacks until told to stop. What is under way then is finished or, when that takes longer than an attempt may, made once more by
/// another worker.
pub async fn call_back(app: Arc<App>, jobs: Arc<Jobs>, caller: Caller, stop: watch::Receiver<bool>) {
    let mut failures = 0;
    while !stopping(&stop) {
        match jobs.queue.callbacks(CALLS, caller.lease()).await {
            Ok(due) if due.is_empty() => pause(&stop, IDLE * 2).await,
            Ok(due) => {
                failures = 0;
                join_all(due.iter().map(|due| call(&app, &jobs, &caller, due))).await;
            }
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "no callbacks");
                pause(&stop, DOWN.jittered(failures)).await;
            }
        }
    }
}

async fn call(app: &App, jobs: &Jobs, caller: &Caller, due: &super::queue::Due) {
    let begun = Instant::now();
    let called = caller.call(due).await;
    let (outcome, note) = match &called {
        Called::Delivered => ("delivered", ""),
        Called::Retry(_, note) => ("retried", note.as_str()),
        Called::Dead(note) => ("dead", note.as_str()),
    };
    app.metrics.jobs.called(outcome, begun.elapsed());
    if outcome != "delivered" {
        tracing::warn!(job = due.id, outcome, note, "callback");
    }
    let attempt = due.view.number("callback_attempts").unwrap_or(1);
    if let Err(error) = jobs.queue.called(&due.id, attempt, &called).await {
        // It is due again when the attempt's lease runs out; the receiver knows it by its idempotency key.
        tracing::warn!(%error, job = due.id, "cannot settle a callback");
    }
}
