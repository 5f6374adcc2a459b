//! Information about the gateway itself, at hosts that no ModelDeployment declares: load balancers
//! probe here whether it accepts requests, independent of the ModelDeployments.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::json;
use slipway_contracts::paths;
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::message::frame_message;
use slipway_gateway_policy::refusal::RequestRefusal;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_upstream::buffer::BufferedBody;

use super::answer::{AnswerBody, json_response, refusal_response};

const NAME: &str = "slipway-gateway";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The REST answer for the paths that [`slipway_gateway_routing::select`] assigns to the gateway.
pub fn rest_response(
    gateway: &GatewayContext,
    method: &Method,
    path: &str,
) -> Response<AnswerBody> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return refusal_response(RequestRefusal::Method, false);
    }
    let ready = gateway.is_ready();
    match path {
        paths::SERVER_LIVE => health_response(true, ready),
        paths::SERVER_READY => health_response(ready, ready),
        _ => json_response(
            StatusCode::OK,
            &json!({ "name": NAME, "version": VERSION, "extensions": [] }),
        ),
    }
}

/// The answer to a health request: the status reflects `well`, so that probes need not parse the
/// body.
pub fn health_response(well: bool, ready: bool) -> Response<AnswerBody> {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(status, &json!({ "live": true, "ready": ready }))
}

/// The gRPC answer. The messages are those of the Open Inference Protocol and of `grpc.health.v1`,
/// which omit a field that is false.
pub fn grpc_response(gateway: &GatewayContext, path: &str) -> Response<AnswerBody> {
    let ready = gateway.is_ready();
    let yes = vec![8, 1];
    let message = match path {
        grpc::SERVER_METADATA => [text_field(1, NAME), text_field(2, VERSION)].concat(),
        // NOT_SERVING has the value 2.
        grpc::HEALTH_CHECK if !ready => vec![8, 2],
        grpc::SERVER_READY if !ready => Vec::new(),
        _ => yes,
    };
    let trailers = HeaderMap::from_iter([(grpc::STATUS, HeaderValue::from_static("0"))]);
    let whole = BufferedBody {
        chunks: vec![Bytes::from(frame_message(&message))],
        trailers: Some(trailers),
        reservation: None,
    };
    let mut response = Response::new(AnswerBody::buffered(whole));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A field with a short text.
fn text_field(field: u8, text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let length = u8::try_from(text.len()).unwrap_or_default().min(127);
    [&[field << 3 | 2, length], &text[..usize::from(length)]].concat()
}
