//! A job as JSON: the answer of `GET /v2/jobs/{id}`, and the body of callbacks.

use serde::Serialize;
use serde_json::value::RawValue;
use slipway_runtime_queue::queue::StoredJob;

/// The JSON that [`job_view`] creates.
#[derive(Debug, Serialize)]
pub struct JobView<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'a str>,
    attempts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<CallbackView<'a>>,
}

#[derive(Debug, Serialize)]
struct CallbackView<'a> {
    status: &'a str,
    attempts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// The job with its result, an inference response of the Open Inference Protocol v2. Times are
/// milliseconds since 1970; `attempts` counts how often it was started; `version` is the version
/// that answered.
pub fn job_view<'a>(id: &'a str, view: &'a StoredJob, with_callback: bool) -> JobView<'a> {
    let callback =
        view.text("callback_status").filter(|_| with_callback).map(|status| CallbackView {
            status,
            attempts: view.number("callback_attempts").unwrap_or(0),
            error: view.text("callback_error"),
        });
    JobView {
        id,
        model: view.text("model"),
        version: view.text("version"),
        status: view.text("status").unwrap_or("queued"),
        priority: view.text("priority"),
        attempts: view.number("attempts").unwrap_or(0),
        created_at: view.number("created_at"),
        started_at: view.number("started_at"),
        finished_at: view.number("finished_at"),
        error: view.text("error"),
        // This program writes valid JSON; anything else comes from another writer and is omitted.
        result: view.text("result").and_then(|text| serde_json::from_str(text).ok()),
        callback,
    }
}
