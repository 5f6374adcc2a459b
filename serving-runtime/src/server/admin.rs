//! Probes and metrics.

use bytes::Bytes;
use http::{Request, StatusCode};
use slipway_contracts::paths;

use super::{AppState, FullResponse, bytes_response, error_response};

const TEXT_PLAIN: &str = "text/plain; charset=utf-8";
const OCTET_STREAM: &str = "application/octet-stream";

/// Answers one request.
pub async fn handle_admin_request<B>(app: &AppState, request: Request<B>) -> FullResponse {
    match request.uri().path() {
        paths::LIVENESS => bytes_response(StatusCode::OK, TEXT_PLAIN, "ok\n"),
        paths::READINESS => match app.unready_reason() {
            None => bytes_response(StatusCode::OK, TEXT_PLAIN, "ok\n"),
            Some(why) => bytes_response(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT_PLAIN,
                Bytes::from_static(why.as_bytes()),
            ),
        },
        paths::METRICS => {
            let queued = app.predictor.models.all().iter().map(|model| model.pool.queued()).sum();
            let (content_type, body) = app.predictor.metrics.exposition(queued, request.headers());
            bytes_response(StatusCode::OK, content_type, body)
        }
        paths::HOT_INPUTS => {
            // Inputs of clients, which are nobody else's to read.
            if let Err(error) = app.predictor.keys.authorize(request.headers()) {
                return error_response(&error.into());
            }
            let hot = app.predictor.caches.results.as_ref().and_then(|results| results.hot_keys());
            match (hot, app.predictor.models.primary()) {
                (Some(hot), Some(model)) => {
                    bytes_response(StatusCode::OK, OCTET_STREAM, hot.encode(&model.signature))
                }
                _ => bytes_response(
                    StatusCode::NOT_FOUND,
                    TEXT_PLAIN,
                    "what is hot is not remembered (--cache-hot-keys)\n",
                ),
            }
        }
        _ => bytes_response(
            StatusCode::NOT_FOUND,
            TEXT_PLAIN,
            "there is /livez, /readyz and /metrics\n",
        ),
    }
}
