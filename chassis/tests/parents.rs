//! A test binary of its own, because trust in parents is a setting of the process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use http::{HeaderMap, HeaderValue, Method};
use opentelemetry_sdk::trace::InMemorySpanExporter;
use slipway_chassis::telemetry;

/// Sampled, and with an id that an id-based sampler records at any share.
const PARENT: &str = "00-00000000000000000000000000000001-b7ad6b7169203331-01";

#[test]
fn untrusted_clients_do_not_decide_what_is_recorded() {
    let exporter = InMemorySpanExporter::default();
    let _telemetry = telemetry::init_with_exporter("test", exporter.clone(), Some(0.0));
    let headers =
        HeaderMap::from_iter([("traceparent".parse().unwrap(), HeaderValue::from_static(PARENT))]);
    let span = telemetry::server_span(&Method::POST, "/v2", &headers);
    let mut passed = HeaderMap::new();
    span.in_scope(|| telemetry::inject_traceparent(&mut passed));
    drop(span);
    assert!(exporter.get_finished_spans().unwrap().is_empty());
    let passed = passed["traceparent"].to_str().unwrap();
    assert!(
        passed.starts_with("00-00000000000000000000000000000001-") && passed.ends_with("-00"),
        "{passed}"
    );

    // What another of our programs has decided, as it stands in a queue, holds.
    drop(telemetry::span_with_parent(slipway_chassis::span!("job"), Some(PARENT)));
    assert_eq!(exporter.get_finished_spans().unwrap().len(), 1);
}
