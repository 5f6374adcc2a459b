//! `POST /v2/models/{m}/jobs`, `GET` and `DELETE /v2/models/{m}/jobs/{id}` and `/v2/jobs/{id}`.

use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use slipway_contracts::paths::MODELS;
use slipway_runtime_jobs::service::JobService;
use slipway_runtime_jobs::submit::{self, JobSubmission, queue_unavailable};
use slipway_runtime_jobs::{callback, view};
use slipway_runtime_queue::job;
use slipway_runtime_queue::queue::{JobQueue as _, JobStatus, StoredJob};

use super::error::ApiError;
use super::{AppState, FullResponse, body, json_response};

const KEY_HEADER: &str = "idempotency-key";
/// Largest size of a job besides its request, in bytes.
const JOB_OVERHEAD_BYTES: usize = 16 << 10;

fn require_jobs(app: &AppState) -> Result<&Arc<JobService>, ApiError> {
    app.jobs.get().ok_or_else(|| {
        ApiError::NotFound("this server has no queue; start it with --queue-url".into())
    })
}

/// Accepts a job.
pub(super) async fn submit_job(
    app: &AppState,
    model: &str,
    version: Option<&str>,
    request: Request<Incoming>,
) -> Result<FullResponse, ApiError> {
    let jobs = require_jobs(app)?;
    let answer = enqueue_submission(app, jobs, model, version, request).await;
    let outcome = match &answer {
        Ok((_, true)) => "accepted",
        Ok((_, false)) => "duplicate",
        Err(ApiError::Conflict(_)) => "conflict",
        Err(ApiError::QueueFull(_)) => "full",
        Err(ApiError::Unavailable(_)) => "unavailable",
        Err(_) => "invalid",
    };
    app.job_metrics.count_submission(outcome);
    let (id, new) = answer?;
    // With the name of the model, so that it leads back here through a gateway at whatever host the
    // client used.
    let url = format!("{MODELS}{model}/jobs/{id}");
    let mut answer = json_response(
        StatusCode::ACCEPTED,
        &json!({"id": id, "status_url": url, "duplicate": !new}),
    );
    if let Ok(value) = HeaderValue::from_str(&url) {
        answer.headers_mut().insert(LOCATION, value);
    }
    Ok(answer)
}

async fn enqueue_submission(
    app: &AppState,
    jobs: &JobService,
    model: &str,
    version: Option<&str>,
    request: Request<Incoming>,
) -> Result<(String, bool), ApiError> {
    let (head, incoming) = request.into_parts();
    let key = idempotency_key(&head.headers)?;
    let encoding = body::content_encoding(&head.headers)?;
    let limit = jobs.max_job_bytes.saturating_sub(JOB_OVERHEAD_BYTES).max(1);
    let limited = app.args.request_timeout();
    let collected =
        tokio::time::timeout(limited, body::collect_body(&head.headers, incoming, limit)).await;
    let collected = collected.map_err(|_| ApiError::Deadline(limited.as_millis()))??;
    let bytes = body::decode_body(collected, encoding, limit)?;
    let mut job = JobSubmission::parse(&bytes)?.into_job(model, version, key.as_deref())?;
    // Without a span of this server, the client's own trace context is passed on.
    let parent = || {
        head.headers
            .get("traceparent")?
            .to_str()
            .ok()
            .filter(|it| it.len() <= 64)
            .map(str::to_owned)
    };
    job.traceparent = job.traceparent.or_else(parent);
    // A job that cannot succeed is rejected here, before it waits in the queue.
    let model = app.predictor.models.get(&job.model_id, job.pinned_version())?;
    submit::parse_request(&app.predictor, &model, job.data.get())?;
    let (max_jobs, allow) = submit::submission_limits(jobs, &head.headers)?;
    if let Some(url) = &job.callback_url {
        callback::check_callback_url(&allow, url).map_err(ApiError::BadRequest)?;
    }
    Ok(submit::enqueue_job(jobs, &job, max_jobs).await?)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(KEY_HEADER) else { return Ok(None) };
    let key = value
        .to_str()
        .map(str::to_owned)
        .map_err(|_| ApiError::bad_request("header Idempotency-Key must be ASCII"))?;
    job::check_key(&key).map_err(ApiError::BadRequest)?;
    Ok(Some(key))
}

/// Returns a job, or cancels it. In the path of a `model` the job must belong to that model.
pub(super) async fn get_or_cancel_job(
    app: &AppState,
    model: Option<&str>,
    id: &str,
    method: &Method,
) -> Result<FullResponse, ApiError> {
    let jobs = require_jobs(app)?;
    let unknown = || {
        ApiError::NotFound(format!(
            "there is no job {id:?}; results are kept for {} s",
            app.args.queue.job_result_ttl_seconds
        ))
    };
    if !job::is_valid_id(id) {
        return Err(unknown());
    }
    // The model of a job that another producer wrote is unknown until a worker has read it.
    let is_anothers = |found: &StoredJob| {
        found.text("model").is_some_and(|of| model.is_some_and(|asked| of != asked))
    };
    if method == Method::DELETE {
        if model.is_some()
            && jobs
                .queue
                .get_job(id)
                .await
                .map_err(|e| queue_unavailable(&e))?
                .as_ref()
                .is_some_and(is_anothers)
        {
            return Err(unknown());
        }
        return match jobs.queue.cancel(id).await.map_err(|e| queue_unavailable(&e))? {
            None => Err(unknown()),
            Some(JobStatus::Queued | JobStatus::Cancelled) => {
                Ok(json_response(StatusCode::OK, &json!({"id": id, "status": "cancelled"})))
            }
            Some(status) => Err(ApiError::Conflict(format!(
                "job {id} is {}; only a queued job can be cancelled",
                status.name()
            ))),
        };
    }
    let found = jobs.queue.get_job(id).await.map_err(|e| queue_unavailable(&e))?;
    let found = found.filter(|found| !is_anothers(found)).ok_or_else(unknown)?;
    Ok(json_response(StatusCode::OK, &view::job_view(id, &found, true)))
}
