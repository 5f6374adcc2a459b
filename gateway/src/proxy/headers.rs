//! The headers that may pass from one connection to the next.

use std::net::IpAddr;

use http::header::{
    CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use slipway_contracts::headers as contract;

/// The revision that answered.
pub const REVISION: HeaderName = HeaderName::from_static(contract::REVISION);
/// The candidate whose failure was hidden from the client.
pub const SHIELDED: HeaderName = HeaderName::from_static(contract::SHIELDED);
/// Size limit of request bodies for the pod.
pub const MAX_REQUEST: HeaderName = HeaderName::from_static(contract::MAX_REQUEST_BYTES);
/// Maximum number of waiting jobs for the pod.
pub const MAX_JOBS: HeaderName = HeaderName::from_static(contract::QUEUE_MAX_JOBS);
/// Allowed callback destinations for the pod.
pub const CALLBACK_ALLOW: HeaderName = HeaderName::from_static(contract::CALLBACK_ALLOW);
/// The id by which a client sends feedback on its answer.
pub const PREDICTION_ID: HeaderName = HeaderName::from_static(contract::PREDICTION_ID);
/// Proves to a pod that a client has presented the token.
pub const ACCESS: HeaderName = HeaderName::from_static(contract::ACCESS);
/// A pod's report on a prediction, for its id.
pub const PREDICTION: HeaderName = HeaderName::from_static(contract::PREDICTION);
/// The client's own deadline in milliseconds; it can only shorten.
pub const TIMEOUT: HeaderName = HeaderName::from_static(contract::REQUEST_TIMEOUT_MS);

/// How an answer was produced: `hit`, `miss` or `bypass`.
pub const CACHE: HeaderName = HeaderName::from_static(contract::CACHE);

/// Number of outputs of an answer that contain a NaN.
pub const NAN_OUTPUTS: HeaderName = HeaderName::from_static(contract::NAN_OUTPUTS);

/// Prefix of headers between gateways and pods.
const SLIPWAY_PREFIX: &str = contract::PREFIX;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes headers that concern only one connection (RFC 9110, 7.6.1). `te: trailers` stays,
/// because gRPC requires it.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in listed {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if headers.get(TE).is_some_and(|value| value != "trailers") {
        headers.remove(TE);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION] {
        headers.remove(name);
    }
    for name in [TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
}

/// Whether an answer came from a cache.
pub fn is_cached(headers: &HeaderMap) -> bool {
    headers.get(CACHE).is_some_and(|value| value == "hit")
}

/// Whether an answer reports outputs with a NaN.
pub fn holds_nan(headers: &HeaderMap) -> bool {
    headers.get(NAN_OUTPUTS).is_some_and(|value| value != "0")
}

/// Prepares a client's headers for the pod: removes hop-by-hop headers and those reserved for the
/// gateway, sets `x-forwarded-*`, and keeps the host in `host`.
pub fn prepare_for_upstream(parts: &mut Parts, peer: IpAddr) {
    let headers = &mut parts.headers;
    strip_hop_by_hop(headers);
    // The gateway handles it: reading the body requests it from the client.
    headers.remove(EXPECT);
    if !headers.contains_key(HOST)
        && let Some(host) =
            parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
    {
        headers.insert(HOST, host);
    }
    // Only gateways may send these headers to pods.
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(SLIPWAY_PREFIX)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    // Combines several lines into one list.
    let lines = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let chain = lines.map(str::to_owned).chain([peer.to_string()]).collect::<Vec<_>>().join(", ");
    let chain = HeaderValue::from_str(&chain);
    if let Ok(chain) = chain {
        headers.insert(FORWARDED_FOR, chain);
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_speaks_of_one_connection_does_not_pass() {
        let request = Request::builder()
            .uri("http://digits.ns/v2/models/digits/infer")
            .header("connection", "close, x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("transfer-encoding", "chunked")
            .header("te", "trailers")
            .header("expect", "100-continue")
            .header("upgrade", "h2c")
            .header("x-forwarded-for", "192.0.2.1")
            .header("x-forwarded-for", "192.0.2.2, 192.0.2.3")
            .header("x-slipway-max-request-bytes", "999999999")
            .header("x-slipway-anything", "1")
            .header("x-user-id", "7");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        prepare_for_upstream(&mut parts, IpAddr::from([198, 51, 100, 2]));
        let mut left: Vec<_> =
            parts.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "host: digits.ns",
                "te: trailers",
                "x-forwarded-for: 192.0.2.1, 192.0.2.2, 192.0.2.3, 198.51.100.2",
                "x-forwarded-proto: http",
                "x-user-id: 7"
            ]
        );
    }
}
