//! The parts of gRPC over HTTP/2 that gateway and model server both read
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Request: the client's deadline.
pub const TIMEOUT_HEADER: &str = "grpc-timeout";
/// Trailer: the status of a call as a number.
pub const STATUS_HEADER: &str = "grpc-status";
/// Trailer: the message of a status, percent-encoded.
pub const MESSAGE_HEADER: &str = "grpc-message";

/// Whether these are the headers of a gRPC call.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The client's deadline. A malformed one is ignored, as in other gRPC servers.
pub fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT_HEADER)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn timeout_of(text: &str) -> Option<Duration> {
        let value = HeaderValue::from_str(text).ok()?;
        client_timeout(&HeaderMap::from_iter([(
            http::HeaderName::from_static(TIMEOUT_HEADER),
            value,
        )]))
    }

    #[test]
    fn timeouts_have_a_number_and_a_unit() {
        assert_eq!(timeout_of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout_of("2S"), Some(Duration::from_secs(2)));
        assert_eq!(timeout_of("1H"), Some(Duration::from_secs(3600)));
        assert_eq!((timeout_of("soon"), timeout_of(""), timeout_of("5")), (None, None, None));
        assert_eq!((timeout_of("-1S"), timeout_of("1s"), timeout_of("x1S")), (None, None, None));
        assert!(timeout_of(&format!("{}H", u64::MAX)).is_some(), "bounded, without overflow");
    }

    #[test]
    fn calls_are_known_by_their_content_type() {
        let is_call = |text: &'static str| {
            is_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]))
        };
        assert!(is_call("application/grpc") && is_call("application/grpc+proto"));
        assert!(!is_call("application/json") && !is_grpc(&HeaderMap::new()));
    }
}
