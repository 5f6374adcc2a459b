//! Limits on the duration, number and size of requests.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::time::Duration;

use http::StatusCode;
use http_body_util::Full;
use support::client::{http1, infer, predict, send};
use support::upstream::{Mood, Upstream};
use support::{STABLE, World, within};
use tokio::time::Instant;

#[tokio::test]
async fn the_deadline_is_the_modeldeployments_and_the_client_can_shorten_it() {
    let slow = Upstream::start("slow", Mood::Hang).await;
    let mut world = World::new().await;
    world.weigh(1, 0).endpoints(STABLE, &[slow.addr]);
    world.model().timeout = Duration::from_millis(300);
    world.apply();
    let client = http1();
    let started = Instant::now();
    let answer = predict(&client, world.data).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(
        answer.body.starts_with("{\"error\":") && started.elapsed() >= Duration::from_millis(300)
    );

    world.model().timeout = Duration::from_secs(60);
    world.apply();
    let request =
        infer(world.data).header("x-request-timeout-ms", "100").body(Full::default()).unwrap();
    let answer = within(Duration::from_secs(10), send(&client, request)).await.unwrap();
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    // The client's own deadline was shorter than the expected answer time: that is no failure of
    // the arm.
    let metrics = world.metrics();
    assert_eq!(
        (
            metrics.arm(STABLE, "timeout"),
            metrics.arm(STABLE, "cancelled"),
            metrics.client("timeout")
        ),
        (1, 1, 2)
    );
}

#[tokio::test]
async fn too_many_requests_at_one_time_are_turned_away() {
    let slow = Upstream::start("slow", Mood::Hang).await;
    let mut world = World::with(|settings| settings.max_in_flight = 1).await;
    world.weigh(1, 0).endpoints(STABLE, &[slow.addr]).apply();
    let (client, addr) = (http1(), world.data);
    let first = tokio::spawn(async move { predict(&client, addr).await });
    support::eventually("the first arrives", || slow.served() == 1).await;
    let answer = predict(&http1(), world.data).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
    );
    first.abort();
    let gateway = &world.gateway;
    support::eventually("the client's leaving is noticed", || {
        gateway.metrics.encode_text().unwrap().contains("outcome=\"cancelled\"} 1")
    })
    .await;
    assert_eq!(world.metrics().arm(STABLE, "cancelled"), 1);
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn bodies_beyond_the_bound_are_refused() {
    let good = Upstream::start("good", Mood::Good).await;
    let mut world = World::with(|settings| settings.max_body = 100).await;
    world.weigh(1, 0).endpoints(STABLE, &[good.addr]).apply();
    let request = infer(world.data).body(Full::from(vec![b'x'; 101])).unwrap();
    assert_eq!(send(&http1(), request).await.unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
    world.metrics().assert_conserved();
}
