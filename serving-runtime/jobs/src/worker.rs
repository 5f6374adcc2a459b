//! Takes jobs, runs them, stores what came out, and makes the callbacks.
//!
//! Many jobs are predicted side by side, and their rows merge into batches in the model's own
//! queue; a slow one holds up no other. A job that was handed out before may be the one that its
//! last worker died of, so it runs alone: if it kills this one too, it takes no other along, and
//! after the most deliveries that there may be it goes to the dead-letter stream without being run.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_predict::predictor::Predictor;
use slipway_runtime_queue::backoff::RetryBackoff;
use slipway_runtime_queue::job::QueuedJob;
use slipway_runtime_queue::queue::{
    ClaimedJob, JobCompletion, JobLease, JobQueue as _, JobStatus, QueueError, RetryRequest,
    StartDecision,
};
use tokio::sync::watch;

use crate::args::WorkerArgs;
use crate::service::{JobService, OUTAGE_BACKOFF, is_stopping, sleep_or_stop};
use crate::{callback, submit};

/// Between two looks at an empty queue.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// The same when there was something: there may be more, and a little later it is more at once.
const BUSY_POLL: Duration = Duration::from_millis(10);
/// Every so many turns the lowest priority comes first, so that it is not starved.
const FAIR_EVERY: u64 = 8;
/// Waits before another attempt at a job; the lease bounds them too.
const RETRY_BACKOFF: RetryBackoff =
    RetryBackoff { first: Duration::from_secs(1), max: Duration::from_secs(300) };
/// Bytes of an error that are stored.
const MAX_ERROR: usize = 2048;

/// How one delivery went.
enum DeliveryOutcome {
    Completed(JobCompletion),
    Retry(RetryRequest),
}

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
        let left = std::mem::take(&mut *self.lock_held());
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
                    OUTAGE_BACKOFF.jittered_delay(failures)
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
        self.lock_held().extend(held);
        Ok(taken)
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, Vec<HeldLease>> {
        // A list of names is whole whoever panicked.
        self.held_leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the leases of what is held; never ends.
    async fn renew_leases(&self) {
        loop {
            tokio::time::sleep(self.jobs.queue.options().lease / 3).await;
            let held: Vec<JobLease> =
                self.lock_held().iter().map(|held| held.lease.clone()).collect();
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
        self.lock_held().retain(|held| !same(&held.lease));
        self.jobs.metrics.record_delivery(outcome, begun.elapsed());
    }

    async fn process_job(&self, claimed: &ClaimedJob) -> Result<&'static str, QueueError> {
        let mut lease = claimed.lease.clone();
        let job = match QueuedJob::parse(&claimed.payload, self.jobs.max_job_bytes) {
            Ok(job) => job,
            Err(error) => {
                return self
                    .finish(&lease, new_completion(JobStatus::Dead, error, &claimed.payload))
                    .await;
            }
        };
        if !job.id.is_empty() {
            lease.id.clone_from(&job.id);
        }
        let span = || {
            let (kind, deliveries) = ("consumer", claimed.deliveries);
            let span =
                slipway_telemetry::span!("job", otel.kind = kind, job = lease.id, deliveries);
            slipway_telemetry::span_with_parent(span, job.traceparent.as_deref())
        };
        slipway_telemetry::run_in_span(span, self.execute(&lease, &job, claimed)).await
    }

    /// Everything from the beginning of a job to the keeping of what became of it.
    async fn execute(
        &self,
        lease: &JobLease,
        job: &QueuedJob,
        claimed: &ClaimedJob,
    ) -> Result<&'static str, QueueError> {
        let start =
            self.jobs.queue.start(lease, job, claimed.deliveries, claimed.payload.len()).await?;
        let went = match start {
            StartDecision::Duplicate => return Ok("duplicate"),
            StartDecision::Expired => DeliveryOutcome::Completed(new_completion(
                JobStatus::Expired,
                "the deadline passed before it was begun".into(),
                &[],
            )),
            StartDecision::Dead => {
                let times = (claimed.deliveries - 1).max(self.jobs.queue.options().max_deliveries);
                let error = format!(
                    "handed out {times} times without an end; it may be what its workers died of"
                );
                DeliveryOutcome::Completed(new_completion(JobStatus::Dead, error, &claimed.payload))
            }
            StartDecision::Run => self.attempt(job, claimed).await,
        };
        match went {
            DeliveryOutcome::Completed(end) => {
                let (callback_url, traceparent) =
                    (self.allowed_callback(job), job.traceparent.clone());
                self.finish(lease, JobCompletion { callback_url, traceparent, ..end }).await
            }
            DeliveryOutcome::Retry(again) => {
                let given_back = self
                    .persist_with_retry(|| self.jobs.queue.retry(&self.consumer, lease, &again))
                    .await?;
                Ok(if given_back { "retried" } else { "lost" })
            }
        }
    }

    /// The job's callback, if it may be made at all.
    fn allowed_callback(&self, job: &QueuedJob) -> Option<String> {
        job.callback_url
            .clone()
            .filter(|url| callback::check_callback_url(&self.jobs.allow, url).is_ok())
    }

    async fn finish(
        &self,
        lease: &JobLease,
        end: JobCompletion,
    ) -> Result<&'static str, QueueError> {
        let first = self.persist_with_retry(|| self.jobs.queue.finish(lease, &end)).await?;
        if end.status == JobStatus::Dead {
            tracing::error!(job = lease.id, error = end.error, "dead-letter");
        }
        Ok(if first { end.status.name() } else { "duplicate" })
    }

    /// A result is worth some patience: the work is done.
    async fn persist_with_retry<T, F: Future<Output = Result<T, QueueError>>>(
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
                    tokio::time::sleep(OUTAGE_BACKOFF.jittered_delay(failures)).await;
                }
                answer => return answer,
            }
        }
    }

    /// One attempt at a job that is registered as running.
    async fn attempt(&self, job: &QueuedJob, claimed: &ClaimedJob) -> DeliveryOutcome {
        match self.predict(job).await {
            Ok((result, version)) => DeliveryOutcome::Completed(JobCompletion {
                result,
                version,
                ..new_completion(JobStatus::Succeeded, String::new(), &[])
            }),
            // Not the job's fault.
            Err(PredictError::Overloaded(_) | PredictError::Unavailable(_)) => {
                DeliveryOutcome::Retry(self.retry_request(claimed, String::new(), false))
            }
            Err(error @ (PredictError::ModelFailed(_) | PredictError::DeadlineExceeded(_))) => {
                let error = error.to_string();
                if claimed.deliveries >= self.jobs.queue.options().max_deliveries {
                    DeliveryOutcome::Completed(new_completion(
                        JobStatus::Dead,
                        error,
                        &claimed.payload,
                    ))
                } else {
                    DeliveryOutcome::Retry(self.retry_request(claimed, error, true))
                }
            }
            Err(error) => DeliveryOutcome::Completed(new_completion(
                JobStatus::Failed,
                error.to_string(),
                &[],
            )),
        }
    }

    fn retry_request(&self, claimed: &ClaimedJob, mut error: String, counts: bool) -> RetryRequest {
        truncate_error(&mut error);
        RetryRequest {
            delay: RETRY_BACKOFF
                .jittered_delay(claimed.deliveries)
                .min(self.jobs.queue.options().lease),
            error,
            counts,
        }
    }

    async fn predict(&self, job: &QueuedJob) -> Result<(Vec<u8>, String), PredictError> {
        let predictor = self.predictor.as_ref();
        if let Some(url) = &job.callback_url {
            callback::check_callback_url(&self.jobs.allow, url).map_err(PredictError::Invalid)?;
        }
        let model = predictor.models.get(&job.model_id, job.pinned_version()).map_err(|error| {
            match error {
                // It was there when the job came, or the producer's own entry never was for us.
                PredictError::NotFound(text) => PredictError::NotFound(format!(
                    "{text}; send jobs without a version, or as `latest`, to have whichever serves"
                )),
                other => other,
            }
        })?;
        let mut request = submit::parse_request(predictor, &model, job.data.get())?;
        let deadline = Instant::now() + Duration::from_secs(self.args.job_timeout_seconds);
        let inputs = std::mem::take(&mut request.inputs);
        let answer =
            tokio::time::timeout_at(deadline.into(), predictor.predict(&model, inputs, deadline));
        let late =
            || PredictError::DeadlineExceeded(u128::from(self.args.job_timeout_seconds) * 1000);
        let prediction = answer.await.map_err(|_| late())??;
        let names = (model.name.as_str(), model.version.as_str());
        let id = predictor.keys.issue_prediction_id(&prediction.report);
        let body = slipway_runtime_protocol::write_response(
            names,
            &model.signature,
            &request,
            &prediction.outputs,
            id.as_deref(),
        )?;
        let most = self
            .args
            .max_result_bytes
            .min(self.jobs.queue.max_result_bytes().unwrap_or(usize::MAX));
        if body.bytes.len() > most {
            return Err(PredictError::invalid(format!(
                "the result has {} bytes; send fewer rows, ask for fewer outputs, or raise --max-result-bytes ({most})",
                body.bytes.len()
            )));
        }
        Ok((body.bytes, model.version.clone()))
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

fn new_completion(status: JobStatus, mut error: String, payload: &[u8]) -> JobCompletion {
    truncate_error(&mut error);
    JobCompletion::without_result(status, error, payload)
}

fn truncate_error(text: &mut String) {
    let mut at = MAX_ERROR.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.truncate(at);
}
