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

/// What every answer by REST is.
pub type FullResponse = Response<Full<Bytes>>;

/// What an answer on the port of the API is: by REST or by gRPC.
pub type ApiResponse = Response<Either<Full<Bytes>, tonic::body::Body>>;

/// What we call ourselves.
const SERVER_NAME: &str = "slipway-runtime";
const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The extensions of the protocol that every server has.
const EXTENSIONS: [&str; 3] = ["binary_tensor_data", "statistics", "parameters"];
/// Tells the gateway what was predicted, for the prediction id.
const PREDICTION_KEY: &str = slipway_contracts::headers::PREDICTION;
const PREDICTION_HEADER: HeaderName = HeaderName::from_static(PREDICTION_KEY);
/// Requests from here on are parsed off the HTTP threads, where they would hold up everybody else.
const OFFLOAD_BYTES: usize = 128 << 10;

/// Reads what is large aside, so that it does not hold up the other requests of its thread.
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

/// Answers one request on the port of the API. gRPC and REST share it: the content type tells them
/// apart.
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
    // Our own values always serialize; an empty body would still carry the status.
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

/// Asks an HTTP/1 client not to use this connection again. (HTTP/2 has its own way, which the
/// listener uses.)
fn set_connection_close(answer: &mut FullResponse) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
