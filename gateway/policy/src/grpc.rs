//! The parts of gRPC that a proxy needs: which calls are unary, and the meaning of a status.

use http::header::HeaderValue;
use http::{HeaderMap, HeaderName};
use slipway_contracts::grpc as contract;
pub use slipway_contracts::grpc::{client_timeout, is_grpc};

use crate::outcome::RequestOutcome;

/// The status of a call.
pub const STATUS: HeaderName = HeaderName::from_static(contract::STATUS_HEADER);
/// The message of the status, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static(contract::MESSAGE_HEADER);
/// The client's own deadline.
pub const TIMEOUT: HeaderName = HeaderName::from_static(contract::TIMEOUT_HEADER);

/// Unary calls that may run twice. Other calls are bidirectional streams, which cannot be buffered
/// before they are forwarded, or calls with side effects.
const UNARY: [&str; 9] = [
    SERVER_LIVE,
    SERVER_READY,
    "/inference.GRPCInferenceService/ModelReady",
    SERVER_METADATA,
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStatistics",
    "/inference.GRPCInferenceService/RepositoryIndex",
    HEALTH_CHECK,
];

/// Calls whose first message contains the model name in field 1.
const MODEL_CALLS: [&str; 6] = [
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/inference.GRPCInferenceService/ModelStatistics",
    HEALTH_CHECK,
];
/// A health check: without a service name it is about the server.
pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// The service whose health is that of the server.
pub const SERVICE: &[u8] = b"inference.GRPCInferenceService";

/// Liveness of the server as a whole.
pub const SERVER_LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
/// Readiness of the server as a whole.
pub const SERVER_READY: &str = "/inference.GRPCInferenceService/ServerReady";
/// Metadata of the server as a whole.
pub const SERVER_METADATA: &str = "/inference.GRPCInferenceService/ServerMetadata";

/// Whether the call is unary and can be repeated.
pub fn is_known_unary(path: &str) -> bool {
    UNARY.contains(&path)
}

/// Whether the first message of the call contains a model name.
pub fn names_model(path: &str) -> bool {
    MODEL_CALLS.contains(&path)
}

/// Whether the call is about the server as a whole.
pub fn is_about_server(path: &str) -> bool {
    [SERVER_LIVE, SERVER_READY, SERVER_METADATA].contains(&path)
}

/// The outcome according to the status in headers or trailers; `None` without a status.
pub fn status_outcome(headers: &HeaderMap) -> Option<RequestOutcome> {
    headers.get(STATUS).map(outcome_from_status)
}

fn outcome_from_status(status: &HeaderValue) -> RequestOutcome {
    match status.as_bytes() {
        b"0" => RequestOutcome::Success,
        // DEADLINE_EXCEEDED.
        b"4" => RequestOutcome::Timeout,
        // RESOURCE_EXHAUSTED, which corresponds to HTTP status 429.
        b"8" => RequestOutcome::Unavailable,
        // UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS, which correspond to HTTP status 5xx.
        b"2" | b"13" | b"14" | b"15" => RequestOutcome::ServerError,
        // CANCELLED, INVALID_ARGUMENT, NOT_FOUND and similar ones.
        _ => RequestOutcome::ClientError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn statuses() {
        let of = |status| status_outcome(&headers(STATUS, status));
        assert_eq!(of("0"), Some(RequestOutcome::Success));
        assert_eq!(of("3"), Some(RequestOutcome::ClientError));
        assert_eq!(of("14"), Some(RequestOutcome::ServerError));
        assert_eq!(status_outcome(&HeaderMap::new()), None);
    }

    #[test]
    fn streams_are_not_unary() {
        assert!(is_known_unary("/inference.GRPCInferenceService/ModelInfer"));
        assert!(!is_known_unary("/inference.GRPCInferenceService/ModelStreamInfer"));
    }
}
