//! HTTP: the inference API on one port, probes and metrics on another.

mod activity;
mod admin;
mod api;
mod body;
mod call;
mod compress;
mod error;
mod features;
mod grpc;
mod health;
mod infer;
mod jobs;
mod listen;
mod repository;
mod state;
mod statistics;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use serde::Serialize;

use self::error::ApiError;
pub use self::listen::BoundListener;
pub use self::state::AppState;

/// An answer over REST.
pub type FullResponse = Response<Full<Bytes>>;

/// An answer on the port of the API, over REST or gRPC.
pub type ApiResponse = Response<Either<Full<Bytes>, tonic::body::Body>>;

/// The server's name in its metadata.
const SERVER_NAME: &str = "slipway-runtime";
const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The extensions of the protocol that every server has.
const EXTENSIONS: [&str; 3] = ["binary_tensor_data", "statistics", "parameters"];
/// Tells the gateway what was predicted, for the prediction id.
const PREDICTION_KEY: &str = slipway_contracts::headers::PREDICTION;
const PREDICTION_HEADER: HeaderName = HeaderName::from_static(PREDICTION_KEY);
/// Requests of this size (in bytes) or larger are parsed outside of the HTTP threads, where they
/// would delay other requests.
const OFFLOAD_BYTES: usize = 128 << 10;

/// Parses large requests on another thread, so that they do not delay the other requests of this
/// one.
async fn parse_off_thread<T, E>(
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|e| ApiError::Internal(format!("reading the request failed: {e}")))?
        .map_err(Into::into)
}

/// Answers one request on the port of the API. gRPC and REST share it and are distinguished by the
/// content type.
pub async fn handle_api(app: Arc<AppState>, request: Request<Incoming>) -> ApiResponse {
    app.activity.note_request();
    if request.version() == Version::HTTP_2 && slipway_contracts::grpc::is_grpc(request.headers()) {
        return grpc::handle_call(&app, request).await.map(Either::Right);
    }
    api::handle_rest(&app, request).await.map(Either::Left)
}

fn bytes_response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> FullResponse {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn json_response(status: StatusCode, value: &impl Serialize) -> FullResponse {
    // The server's own values can always be written as JSON; otherwise an empty body still carries
    // the status.
    bytes_response(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

fn error_response(error: &ApiError) -> FullResponse {
    let mut answer =
        json_response(error.status(), &serde_json::json!({"error": error.to_string()}));
    if let Some(seconds) = error.retry_after() {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Asks an HTTP/1 client not to reuse this connection. (HTTP/2 has its own message, which the
/// listener sends.)
fn set_connection_close(answer: &mut FullResponse) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
