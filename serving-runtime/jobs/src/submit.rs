//! Checks and enqueues jobs; submissions by HTTP and entries from the stream pass the same checks.

use std::borrow::Cow;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use slipway_chassis::telemetry;
use slipway_egress::{AllowList, AllowRule};
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_predict::models::LoadedModel;
use slipway_runtime_predict::predictor::Predictor;
use slipway_runtime_protocol::InferRequest;
use slipway_runtime_queue::job::{self, JobPriority, QueuedJob};
use slipway_runtime_queue::queue::{EnqueueOutcome, JobQueue as _, QueueError};

use crate::service::JobService;

/// Why a job is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The job is wrong; the text names the field and the remedy.
    #[error("{0}")]
    Invalid(String),
    /// Another job has the same idempotency key.
    #[error("{0}")]
    Conflict(String),
    #[error(
        "the queue of jobs is full ({0} jobs are queued or running); try again later or run more workers"
    )]
    QueueFull(u64),
    /// The queue does not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl SubmitError {
    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

/// The body of `POST /v2/models/{m}/jobs`: a [`QueuedJob`] without the fields that the path and the
/// server determine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSubmission {
    data: Box<RawValue>,
    version: Option<String>,
    callback_url: Option<String>,
    idempotency_key: Option<String>,
    #[serde(default)]
    priority: JobPriority,
    deadline: Option<u64>,
    ttl_seconds: Option<u64>,
}

impl JobSubmission {
    /// Parses the body.
    ///
    /// # Errors
    /// `Invalid` with the expected form.
    pub fn parse(body: &[u8]) -> Result<Self, SubmitError> {
        serde_json::from_slice(body).map_err(|e| {
            SubmitError::invalid(format!("want {{\"data\": {{\"inputs\": [...]}}, \"callback_url\": \"...\"}} with an inference request as data: {e}"))
        })
    }

    /// Converts it to a job. `version` comes from the path and `key` from the header.
    ///
    /// # Errors
    /// `Invalid` names the field.
    pub fn into_job(
        self,
        model: &str,
        version: Option<&str>,
        key: Option<&str>,
    ) -> Result<QueuedJob, SubmitError> {
        let both =
            |name: &str| SubmitError::invalid(format!("{name} is given twice, and not the same"));
        let version = merge_field(self.version, version).map_err(|()| both("version"))?;
        let idempotency_key =
            merge_field(self.idempotency_key, key).map_err(|()| both("idempotency_key"))?;
        let job = QueuedJob {
            id: job::new_id(),
            model_id: model.to_owned(),
            version,
            data: self.data,
            callback_url: self.callback_url,
            idempotency_key,
            priority: self.priority,
            deadline: self.deadline,
            ttl_seconds: self.ttl_seconds,
            // The creation time is set by the queue's clock.
            created_at: None,
            traceparent: telemetry::current_traceparent(),
        };
        job.check().map_err(SubmitError::Invalid)?;
        Ok(job)
    }
}

fn merge_field(body: Option<String>, other: Option<&str>) -> Result<Option<String>, ()> {
    match (body, other) {
        (Some(body), Some(other)) if body != other => Err(()),
        (body, other) => Ok(body.or_else(|| other.map(str::to_owned))),
    }
}

/// The inference request of a job, valid for the model.
///
/// # Errors
/// `Invalid`, with `data` as the place.
pub fn parse_request(
    predictor: &Predictor,
    model: &LoadedModel,
    data: &str,
) -> Result<InferRequest, PredictError> {
    let within = |e| match e {
        PredictError::Invalid(text) => PredictError::Invalid(format!("data: {text}")),
        other => other,
    };
    let request = slipway_runtime_protocol::parse_request(data.as_bytes(), None, &model.signature)
        .map_err(within)?;
    if request.outputs.iter().any(|w| w.binary) {
        return Err(PredictError::invalid(
            "data: asks for binary outputs; the result of a job is JSON, leave binary_data out",
        ));
    }
    predictor.check_rows(model, &request.inputs).map_err(within)?;
    Ok(request)
}

/// Enqueues a checked job if fewer than `max_jobs` wait; returns its id and whether it is new.
///
/// # Errors
/// `Conflict`, `QueueFull`, `Unavailable`.
pub async fn enqueue_job(
    jobs: &JobService,
    job: &QueuedJob,
    max_jobs: u64,
) -> Result<(String, bool), SubmitError> {
    match jobs.queue.enqueue(job, max_jobs).await {
        Ok(EnqueueOutcome::Accepted) => Ok((job.id.clone(), true)),
        Ok(EnqueueOutcome::Duplicate(id)) => Ok((id, false)),
        Ok(EnqueueOutcome::Conflict(id)) => Err(SubmitError::Conflict(format!(
            "idempotency_key: job {id} has this key and another content; send a new key"
        ))),
        Ok(EnqueueOutcome::Full(n)) => Err(SubmitError::QueueFull(n)),
        Err(QueueError::TooLarge(bytes, most)) => Err(SubmitError::invalid(format!(
            "the job has {bytes} bytes, and the queue takes {most}; send fewer rows, or raise the server's max_payload"
        ))),
        Err(error) => Err(queue_unavailable(&error)),
    }
}

/// The header in which gateways send how many jobs may wait; it overrides the server's option.
const MAX_JOBS_HEADER: &str = slipway_contracts::headers::QUEUE_MAX_JOBS;
/// The header in which gateways send the allowed destinations of callbacks, likewise.
const CALLBACK_ALLOW_HEADER: &str = slipway_contracts::headers::CALLBACK_ALLOW;

/// The limits for a job that arrives with these headers: how many jobs may wait, and where its
/// callback may go.
///
/// # Errors
/// `Invalid` when a header cannot be parsed.
pub fn submission_limits<'a>(
    jobs: &'a JobService,
    headers: &HeaderMap,
) -> Result<(u64, Cow<'a, AllowList>), SubmitError> {
    let told = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let unread = |name: &str| {
        SubmitError::invalid(format!("header {name} cannot be read; leave it to the gateway"))
    };
    let max_jobs = match told(MAX_JOBS_HEADER) {
        Some(text) => text.parse().map_err(|_| unread(MAX_JOBS_HEADER))?,
        None => jobs.queue.options().max_entries,
    };
    let Some(text) = told(CALLBACK_ALLOW_HEADER) else {
        return Ok((max_jobs, Cow::Borrowed(&jobs.allow)));
    };
    let rules: Result<Vec<AllowRule>, String> =
        text.split(',').filter(|rule| !rule.is_empty()).map(str::parse).collect();
    let rules = rules.map_err(|_| unread(CALLBACK_ALLOW_HEADER))?;
    Ok((max_jobs, Cow::Owned(AllowList::new(&rules))))
}

/// Converts an error of the queue to the client's error.
pub fn queue_unavailable(error: &QueueError) -> SubmitError {
    tracing::warn!(%error, "queue");
    // The error's own text is not included: it contains addresses that are none of the client's
    // business.
    SubmitError::Unavailable(
        "the queue is not available; try again later, with an idempotency key to be safe".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_must_be_the_same() {
        let of = |json: &str, version, key| {
            JobSubmission::parse(json.as_bytes()).and_then(|s| s.into_job("m", version, key))
        };
        let job = of(r#"{"data": {}, "version": "2"}"#, Some("2"), Some("k")).unwrap();
        assert_eq!(
            (job.version.as_deref(), job.idempotency_key.as_deref(), job.id.len()),
            (Some("2"), Some("k"), 32)
        );
        assert!(
            of(r#"{"data": {}, "version": "2"}"#, Some("3"), None)
                .unwrap_err()
                .to_string()
                .contains("version")
        );
        assert!(of(r#"{"data": {}, "idempotency_key": "a"}"#, None, Some("b")).is_err());
        assert!(
            of(r#"{"data": {}, "callbackurl": "x"}"#, None, None)
                .unwrap_err()
                .to_string()
                .contains("callbackurl")
        );
        assert!(of(r#"{"inputs": []}"#, None, None).unwrap_err().to_string().contains("\"data\""));
    }
}
