//! One delivery of a job, from its start until its outcome is stored.

use std::future::Future;
use std::time::{Duration, Instant};

use slipway_chassis::backoff::{Backoff, Jitter};
use slipway_chassis::telemetry;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_queue::job::QueuedJob;
use slipway_runtime_queue::queue::{
    ClaimedJob, JobCompletion, JobLease, JobQueue as _, JobStatus, QueueError, RetryRequest,
    StartDecision,
};

use super::JobWorker;
use crate::service::OUTAGE_BACKOFF;
use crate::{callback, submit};

/// Waits before another attempt at a job; the lease bounds them too.
const RETRY_BACKOFF: Backoff = Backoff {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(300),
    jitter: Jitter::Full,
};
/// Bytes of an error that are stored.
const MAX_ERROR: usize = 2048;

/// The outcome of one delivery.
enum DeliveryOutcome {
    Completed(JobCompletion),
    Retry(RetryRequest),
}

impl JobWorker {
    pub(super) async fn process_job(
        &self,
        claimed: &ClaimedJob,
    ) -> Result<&'static str, QueueError> {
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
            let span = slipway_chassis::span!("job", otel.kind = kind, job = lease.id, deliveries);
            telemetry::span_with_parent(span, job.traceparent.as_deref())
        };
        telemetry::run_in_span(span, self.execute(&lease, &job, claimed)).await
    }

    /// Starts a job, runs it and stores its outcome.
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

    /// The job's callback, if its URL is allowed.
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

    /// Retries to store an outcome: the work is done, and would be lost otherwise.
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
                    tokio::time::sleep(OUTAGE_BACKOFF.random_delay(failures)).await;
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
            // These errors are not caused by the job.
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
        error.truncate(error.floor_char_boundary(MAX_ERROR));
        RetryRequest {
            delay: RETRY_BACKOFF
                .random_delay(claimed.deliveries)
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
                // The model or version existed on submission, or a producer wrote the entry for
                // another one.
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

fn new_completion(status: JobStatus, mut error: String, payload: &[u8]) -> JobCompletion {
    error.truncate(error.floor_char_boundary(MAX_ERROR));
    JobCompletion::without_result(status, error, payload)
}
