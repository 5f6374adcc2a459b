//! Probes and metrics.

use bytes::Bytes;
use http::{Request, StatusCode};

use super::{Answer, App, bytes_answer, error_answer};
use crate::cache::prewarm;

const TEXT: &str = "text/plain; charset=utf-8";
const BINARY: &str = "application/octet-stream";

/// Answers one request.
pub async fn handle<B>(app: &App, request: Request<B>) -> Answer {
    match request.uri().path() {
        "/livez" => bytes_answer(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match app.not_ready() {
            None => bytes_answer(StatusCode::OK, TEXT, "ok\n"),
            Some(why) => bytes_answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, Bytes::from_static(why.as_bytes())),
        },
        "/metrics" => {
            let queued = app.models.all().iter().map(|model| model.pool.queued()).sum();
            let (content_type, body) = app.metrics.exposition(queued, request.headers());
            bytes_answer(StatusCode::OK, content_type, body)
        }
        prewarm::PATH => {
            // Inputs of clients, which are nobody else's to read.
            if let Err(error) = app.keys.authorize(request.headers()) {
                return error_answer(&error);
            }
            let hot = app.caches.results.as_ref().and_then(|results| results.hot_keys());
            match (hot, app.models.own()) {
                (Some(hot), Some(model)) => bytes_answer(StatusCode::OK, BINARY, hot.encode(&model.signature)),
                _ => bytes_answer(StatusCode::NOT_FOUND, TEXT, "what is hot is not remembered (--cache-hot-keys)\n"),
            }
        }
        _ => bytes_answer(StatusCode::NOT_FOUND, TEXT, "there is /livez, /readyz and /metrics\n"),
    }
}
