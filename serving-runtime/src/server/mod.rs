//! HTTP: the inference API on one port, probes and metrics on another.

mod admin;
mod api;
mod body;
mod infer;
mod jobs;
mod listen;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

pub use self::admin::handle as handle_admin;
pub use self::api::handle as handle_api;
pub use self::listen::Listener;
use crate::config::ServeArgs;
use crate::error::ApiError;
use crate::feedback::{Book, Limits};
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::models::Models;

/// What every answer is.
pub type Answer = Response<Full<Bytes>>;

/// What all connections share.
#[derive(Debug)]
pub struct App {
    /// The options.
    pub args: ServeArgs,
    /// The metrics.
    pub metrics: Metrics,
    /// The feedback seen.
    pub book: Book,
    /// The models, each once it is loaded and warm.
    pub models: Models,
    /// The queue of jobs, if there is one.
    pub jobs: OnceLock<Arc<Jobs>>,
    draining: AtomicBool,
}

impl App {
    /// The state of a server that has not loaded its model yet.
    pub fn new(args: ServeArgs) -> Arc<Self> {
        let metrics = Metrics::new(&args.modeldeployment, &args.revision);
        let limits = Limits { ttl_seconds: args.feedback_ttl_seconds, ..Limits::default() };
        let book = Book::new(&args.revision, limits);
        let models = Models::new(&args.model_name);
        Arc::new(Self { args, metrics, book, models, jobs: OnceLock::new(), draining: AtomicBool::new(false) })
    }

    /// From here on the server is not ready, and asks its clients to connect elsewhere.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server shuts down.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Why the server is not ready, if it is not.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.draining() {
            Some("shutting down")
        } else if self.models.own().is_none() {
            Some("the model is loading")
        } else {
            None
        }
    }
}

fn bytes_answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
    // Our own values always serialize; an empty body would still carry the status.
    bytes_answer(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

fn error_answer(error: &ApiError) -> Answer {
    let mut answer = json_answer(error.status(), &serde_json::json!({"error": error.to_string()}));
    if let Some(seconds) = error.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Asks an HTTP/1 client not to use this connection again. (HTTP/2 has its own way, which the listener uses.)
fn ask_to_close(answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
