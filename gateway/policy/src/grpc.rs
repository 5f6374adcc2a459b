//! The little of gRPC that a proxy must know: which calls are unary, and what a status means.

use http::header::HeaderValue;
use http::{HeaderMap, HeaderName};
use slipway_contracts::grpc as contract;
pub use slipway_contracts::grpc::{client_timeout, is_grpc};

use crate::outcome::RequestOutcome;

/// The status of a call.
pub const STATUS: HeaderName = HeaderName::from_static(contract::STATUS_HEADER);
/// Its message, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static(contract::MESSAGE_HEADER);
/// The client's own deadline.
pub const TIMEOUT: HeaderName = HeaderName::from_static(contract::TIMEOUT_HEADER);

/// Calls with one request and one answer that may run twice. Others are streams in both directions,
/// which cannot be read whole before they are sent on, or change something.
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

/// Calls whose first message names a model in field 1.
const MODEL_CALLS: [&str; 6] = [
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/inference.GRPCInferenceService/ModelStatistics",
    HEALTH_CHECK,
];
/// A health check: without a name it is about the server.
pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// The service whose health is that of the server.
pub const SERVICE: &[u8] = b"inference.GRPCInferenceService";

/// Calls about a server as a whole.
pub const SERVER_LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
/// Whether it is ready.
pub const SERVER_READY: &str = "/inference.GRPCInferenceService/ServerReady";
/// Who it is.
pub const SERVER_METADATA: &str = "/inference.GRPCInferenceService/ServerMetadata";

/// Whether the call has one request and one answer, and can be repeated.
pub fn is_known_unary(path: &str) -> bool {
    UNARY.contains(&path)
}

/// Whether the first message of the call names a model.
pub fn names_model(path: &str) -> bool {
    MODEL_CALLS.contains(&path)
}

/// Whether the call is about a server as a whole.
pub fn is_about_server(path: &str) -> bool {
    [SERVER_LIVE, SERVER_READY, SERVER_METADATA].contains(&path)
}

/// What a status in headers or trailers means; none when there is no status.
pub fn status_outcome(headers: &HeaderMap) -> Option<RequestOutcome> {
    headers.get(STATUS).map(outcome_from_status)
}

fn outcome_from_status(status: &HeaderValue) -> RequestOutcome {
    match status.as_bytes() {
        b"0" => RequestOutcome::Success,
        // DEADLINE_EXCEEDED.
        b"4" => RequestOutcome::Timeout,
        // RESOURCE_EXHAUSTED: what 429 is in HTTP.
        b"8" => RequestOutcome::Unavailable,
        // UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS: what 5xx is in HTTP.
        b"2" | b"13" | b"14" | b"15" => RequestOutcome::ServerError,
        // CANCELLED, INVALID_ARGUMENT, NOT_FOUND and the like.
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
