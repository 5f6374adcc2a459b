//! Tracing through the gateway. A separate test binary, because tracing is switched on per process.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use http_body_util::Full;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use slipway_chassis::telemetry;
use support::client::{http1, infer, predict, send};
use support::upstream::{Mood, Upstream};
use support::{CANDIDATE, STABLE, World, eventually};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traceparent(upstream: &Upstream) -> String {
    let last = upstream.last.lock().unwrap();
    last.as_ref().unwrap().headers["traceparent"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn both_arms_of_a_shielded_request_stand_in_the_client_s_trace() {
    let exporter = InMemorySpanExporter::default();
    let telemetry = telemetry::init_with_exporter("test", exporter.clone(), None);
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Status(500)).await,
    );
    let mut world = World::new().await;
    world
        .weigh(1, 1000)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    let client = http1();
    let request = infer(world.data).header("traceparent", PARENT).body(Full::default()).unwrap();
    assert_eq!(send(&client, request).await.unwrap().status, 200);

    let spans = || exporter.get_finished_spans().unwrap();
    eventually("three spans", || spans().len() >= 3).await;
    let spans = spans();
    let request = spans.iter().find(|s| s.name == "POST /v2/models/digits/infer").unwrap();
    assert_eq!(request.parent_span_id.to_string(), "b7ad6b7169203331");
    let arms: Vec<&SpanData> = spans.iter().filter(|s| s.name == "arm").collect();
    assert!(
        arms.len() == 2 && arms.iter().all(|s| s.parent_span_id == request.span_context.span_id()),
        "{arms:?}"
    );
    for (arm, upstream) in arms.iter().zip([&candidate, &stable]) {
        let want = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", arm.span_context.span_id());
        assert_eq!(traceparent(upstream), want, "the pod's spans are children of its arm");
    }

    // Off again: no span is created, and no header is added.
    drop(telemetry);
    let before = exporter.get_finished_spans().map_or(0, |s| s.len());
    assert_eq!(predict(&client, world.data).await.status, 200);
    assert!(!stable.last.lock().unwrap().as_ref().unwrap().headers.contains_key("traceparent"));
    assert_eq!(exporter.get_finished_spans().map_or(0, |s| s.len()), before);
}
