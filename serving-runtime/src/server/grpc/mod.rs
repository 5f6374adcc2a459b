//! gRPC on the port of the API: the Open Inference Protocol and health checking.

mod service;
mod status;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Incoming;
use slipway_contracts::grpc::client_timeout;
use slipway_oip::health::health_server::HealthServer;
use slipway_oip::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use slipway_runtime_predict::metrics::CLIENT_CLOSED_REQUEST;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::{self, Deflate, Gzip};
use tonic::codegen::Service as _;
use tonic::{Code, Status};

use self::service::InferenceService;
use self::status::grpc_status;
use super::AppState;
use super::call::{InferCall, RequestGuard};
use super::error::ApiError;
use super::health::HealthService;

const INFERENCE_PATH: &str = "/inference.GRPCInferenceService/";
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";
const GRPC_ENCODING_HEADER: HeaderName = HeaderName::from_static("grpc-encoding");

/// Answers one call.
pub(super) async fn handle_call(
    app: &Arc<AppState>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path();
    if let Some(method) = path.strip_prefix(HEALTH_PATH) {
        let limit = (method != "Watch").then(|| call_limit(app, request.headers()));
        let mut service =
            HealthServer::new(HealthService(Arc::clone(app))).max_decoding_message_size(1 << 16);
        return with_timeout(limit, service.call(request)).await;
    }
    let Some(method) = path.strip_prefix(INFERENCE_PATH) else {
        let what = format!(
            "there is no {path}; there is inference.GRPCInferenceService and grpc.health.v1.Health"
        );
        return Status::unimplemented(what).into_http();
    };
    let (infers, streams) = (method == "ModelInfer", method == "ModelStreamInfer");
    let limit = call_limit(app, request.headers());
    let call = InferCall::begin(limit);
    app.activity.expect_end(call.started_at() + limit);
    let counting = infers.then(|| RequestGuard::begin(&app.predictor.metrics, &call));
    request.extensions_mut().insert(Arc::clone(&call));
    let mut service = inference_server(app, request.headers());
    let answer = with_timeout((!streams).then_some(limit), service.call(request)).await;
    let Some(counting) = counting else { return answer };
    let (answer, code) = classify_response(answer, &call);
    counting.finish(code);
    answer
}

fn inference_server(
    app: &Arc<AppState>,
    headers: &HeaderMap,
) -> GrpcInferenceServiceServer<InferenceService> {
    let server = GrpcInferenceServiceServer::new(InferenceService(Arc::clone(app)))
        .accept_compressed(Gzip)
        .accept_compressed(Deflate)
        .max_decoding_message_size(app.args.body_limit(headers))
        .max_encoding_message_size(usize::MAX);
    // Every client announces that it accepts compressed answers; the ones that compress their
    // requests want them.
    match response_encoding(headers) {
        Some(encoding) => server.send_compressed(encoding),
        None => server,
    }
}

fn response_encoding(headers: &HeaderMap) -> Option<CompressionEncoding> {
    match headers.get(GRPC_ENCODING_HEADER)?.as_bytes() {
        b"gzip" => Some(Gzip),
        b"deflate" => Some(Deflate),
        _ => None,
    }
}

/// The time limit that the client or the gateway requests, within the server's limit.
fn call_limit(app: &AppState, headers: &HeaderMap) -> Duration {
    app.args.request_time_limit(client_timeout(headers))
}

/// Waits for an answer for at most `limit`. Streams have no limit.
async fn with_timeout<E>(
    limit: Option<Duration>,
    answer: impl Future<Output = Result<Response<Body>, E>>,
) -> Response<Body> {
    let answer = async {
        answer.await.unwrap_or_else(|_| Status::internal("the service failed").into_http())
    };
    let Some(limit) = limit else { return answer.await };
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| grpc_status(&ApiError::Deadline(limit.as_millis())).into_http())
}

/// The answer to an inference, and the HTTP status by which it is counted. A message that the
/// framing layer rejected (before a method was called) is the client's error, whatever status the
/// library gives it: counted as a server error, it would make the server look broken.
fn classify_response(answer: Response<Body>, call: &InferCall) -> (Response<Body>, u16) {
    let Some(failed) = Status::from_header_map(answer.headers()).filter(|s| s.code() != Code::Ok)
    else {
        return (answer, 200);
    };
    if let Some(code) = call.refusal_code() {
        return (answer, code);
    }
    match failed.code() {
        Code::DeadlineExceeded => (answer, 504),
        // The message broke off because its sender left, which is the fault of neither side. (This
        // server's own failures were recorded in the call.)
        Code::Cancelled | Code::Unknown => (answer, CLIENT_CLOSED_REQUEST),
        Code::OutOfRange | Code::ResourceExhausted => {
            let text = format!(
                "{}; send fewer rows, or start the server with a larger --max-body-bytes",
                failed.message()
            );
            (Status::out_of_range(text).into_http(), 413)
        }
        Code::Unimplemented => (answer, 415),
        _ => (Status::invalid_argument(failed.message()).into_http(), 400),
    }
}
