//! A broken candidate causes no error for a client, however it fails.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use support::client::{http1, infer, predict, send};
use support::upstream::{Mood, Upstream, nobody};
use support::{CANDIDATE, STABLE, World, within};

/// Sends ten requests to a candidate with half of the traffic; returns the gateway with its counts.
async fn ten_requests(mood: Mood) -> World {
    let (stable, candidate) =
        (Upstream::start("stable", Mood::Good).await, Upstream::start("candidate", mood).await);
    let mut world = World::new().await;
    world.weigh(1, 1000).endpoints(STABLE, &[stable.addr]).endpoints(CANDIDATE, &[candidate.addr]);
    world.model().shield.candidate_timeout = Some(Duration::from_millis(200));
    world.apply();
    let client = http1();
    let mut shielded = 0;
    for _ in 0..10 {
        let answer = within(Duration::from_secs(4), predict(&client, world.data)).await;
        assert_eq!((answer.status, answer.header("x-upstream")), (StatusCode::OK, Some("stable")));
        assert_eq!(answer.body, "{\"inputs\":[]}");
        assert_eq!(answer.header("x-slipway-revision"), Some(STABLE));
        shielded += usize::from(answer.header("x-slipway-shielded") == Some(CANDIDATE));
    }
    assert_eq!(shielded, 10);
    let metrics = world.metrics();
    assert_eq!(metrics.client("success"), 10);
    assert_eq!(metrics.arm(STABLE, "success"), 10);
    assert_eq!(metrics.sum("shielded_total", &[("revision", CANDIDATE)]), 10);
    metrics.assert_conserved();
    world
}

#[tokio::test]
async fn of_server_errors() {
    for status in [500, 502, 503, 504] {
        let world = ten_requests(Mood::Status(status)).await;
        assert_eq!(world.metrics().arm(CANDIDATE, "server_error"), 10);
    }
}

#[tokio::test]
async fn of_blaming_the_client() {
    for status in [400, 404, 422] {
        let world = ten_requests(Mood::Status(status)).await;
        assert_eq!(world.metrics().arm(CANDIDATE, "contract_error"), 10);
    }
}

#[tokio::test]
async fn of_answers_that_are_no_numbers() {
    let world = ten_requests(Mood::Nan("2")).await;
    assert_eq!(world.metrics().arm(CANDIDATE, "contract_error"), 10);
}

/// A NaN that stable also answers is caused by the request, and a NaN is better than no answer.
#[tokio::test]
async fn a_nan_that_is_not_the_candidates_fault_is_no_failure() {
    for (mood, answered) in [
        (Mood::Nan("1"), "stable"),
        (Mood::Status(503), "candidate"),
        (Mood::Status(400), "candidate"),
    ] {
        let (stable, candidate) = (
            Upstream::start("stable", mood).await,
            Upstream::start("candidate", Mood::Nan("1")).await,
        );
        let mut world = World::new().await;
        world
            .weigh(1, 1000)
            .endpoints(STABLE, &[stable.addr])
            .endpoints(CANDIDATE, &[candidate.addr]);
        world.apply();
        let client = http1();
        for _ in 0..10 {
            let answer = within(Duration::from_secs(4), predict(&client, world.data)).await;
            assert_eq!(
                (answer.status, answer.header("x-upstream")),
                (StatusCode::OK, Some(answered))
            );
        }
        let metrics = world.metrics();
        assert_eq!(
            (metrics.arm(CANDIDATE, "success"), metrics.arm(CANDIDATE, "contract_error")),
            (10, 0)
        );
        assert_eq!(metrics.client("success"), 10);
        metrics.assert_conserved();
    }
}

/// A request that stable also rejects is the client's mistake.
#[tokio::test]
async fn a_clients_mistake_is_not_blamed_on_the_candidate() {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Status(400)).await,
        Upstream::start("candidate", Mood::Status(400)).await,
    );
    let mut world = World::new().await;
    world.weigh(1, 500).endpoints(STABLE, &[stable.addr]).endpoints(CANDIDATE, &[candidate.addr]);
    world.apply();
    let client = http1();
    for _ in 0..100 {
        let answer = within(Duration::from_secs(4), predict(&client, world.data)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let metrics = world.metrics();
    assert!((48..=52).contains(&metrics.arm(CANDIDATE, "client_error")));
    assert_eq!(metrics.arm(CANDIDATE, "contract_error"), 0);
    assert_eq!(metrics.client("client_error"), 100);
    assert_eq!(metrics.arm(STABLE, "client_error"), 100);
    metrics.assert_conserved();
}

#[tokio::test]
async fn of_a_full_queue() {
    let world = ten_requests(Mood::Status(429)).await;
    assert_eq!(world.metrics().arm(CANDIDATE, "unavailable"), 10);
}

#[tokio::test]
async fn of_hanging() {
    let world = ten_requests(Mood::Hang).await;
    assert_eq!(world.metrics().arm(CANDIDATE, "try_timeout"), 10);
}

#[tokio::test]
async fn of_hanging_in_the_middle_of_an_answer() {
    let world = ten_requests(Mood::HangInBody).await;
    assert_eq!(world.metrics().arm(CANDIDATE, "try_timeout"), 10);
}

#[tokio::test]
async fn of_resets() {
    let world = ten_requests(Mood::Reset).await;
    assert_eq!(world.metrics().arm(CANDIDATE, "server_error"), 10);
}

#[tokio::test]
async fn of_truncated_answers() {
    let world = ten_requests(Mood::Truncate).await;
    assert_eq!(world.metrics().arm(CANDIDATE, "server_error"), 10);
}

#[tokio::test]
async fn of_refused_connections_and_of_having_no_pods() {
    let stable = Upstream::start("stable", Mood::Good).await;
    for addrs in [vec![nobody().await], vec![]] {
        let mut world = World::new().await;
        world.weigh(1, 1000).endpoints(STABLE, &[stable.addr]).endpoints(CANDIDATE, &addrs).apply();
        let client = http1();
        for _ in 0..5 {
            let answer = predict(&client, world.data).await;
            assert_eq!(
                (answer.status, answer.header("x-slipway-shielded")),
                (StatusCode::OK, Some(CANDIDATE))
            );
        }
        assert_eq!(world.metrics().arm(CANDIDATE, "unavailable"), 5);
        world.metrics().assert_conserved();
    }
}

#[tokio::test]
async fn without_the_shield_clients_see_the_candidate() {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Status(500)).await,
    );
    let mut world = World::new().await;
    world.weigh(1, 1000).endpoints(STABLE, &[stable.addr]).endpoints(CANDIDATE, &[candidate.addr]);
    world.model().shield.enabled = false;
    world.apply();
    assert_eq!(predict(&http1(), world.data).await.status, 500);
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn without_replay_no_prediction_runs_twice_and_what_never_ran_is_answered() {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Good).await,
    );
    let mut world = World::new().await;
    world.weigh(1, 1000).endpoints(STABLE, &[stable.addr]).endpoints(CANDIDATE, &[candidate.addr]);
    world.model().replay = false;
    world.model().shield.candidate_timeout = Some(Duration::from_millis(50));
    world.apply();
    let client = http1();
    let moods = [
        (Mood::Status(503), 503),
        (Mood::Slow(Duration::from_millis(200)), 200),
        (Mood::Reset, 502),
    ];
    for (at, (mood, status)) in moods.into_iter().enumerate() {
        candidate.set(mood);
        assert_eq!(predict(&client, world.data).await.status, status);
        assert_eq!((candidate.served(), stable.served()), (at + 1, 0), "{status}");
    }
    world.endpoints(CANDIDATE, &[nobody().await]).apply();
    let answer = predict(&client, world.data).await;
    assert_eq!((answer.status, answer.header("x-upstream")), (StatusCode::OK, Some("stable")));
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn the_budget_bounds_replays_that_help_nobody() {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Status(500)).await,
        Upstream::start("candidate", Mood::Status(503)).await,
    );
    let mut world = World::with(|settings| settings.shield_floor = 3).await;
    world
        .weigh(1, 1000)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    let client = http1();
    for _ in 0..20 {
        assert!(predict(&client, world.data).await.status.is_server_error());
    }
    assert_eq!(stable.served(), 3);
    let metrics = world.metrics();
    assert_eq!(metrics.sum("shield_refused_total", &[]), 17);
    metrics.assert_conserved();

    stable.set(Mood::Good);
    world.weigh(2, 500).apply();
    for _ in 0..40 {
        predict(&client, world.data).await;
    }
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn replays_that_help_are_not_bounded() {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Status(503)).await,
    );
    let mut world = World::with(|settings| settings.shield_floor = 3).await;
    world
        .weigh(1, 1000)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    let client = http1();
    for _ in 0..50 {
        assert_eq!(predict(&client, world.data).await.status, 200);
    }
    assert_eq!(world.metrics().sum("shielded_total", &[]), 50);
}

#[tokio::test]
async fn bodies_that_cannot_be_kept_go_to_stable_only() {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Good).await,
    );
    let mut world = World::with(|settings| settings.max_buffered_request = 1000).await;
    world
        .weigh(1, 1000)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    let client = http1();
    let large = Bytes::from(vec![b'x'; 100_000]);
    let answer =
        send(&client, infer(world.data).body(Full::new(large.clone())).unwrap()).await.unwrap();
    assert_eq!((answer.status, answer.header("x-upstream")), (StatusCode::OK, Some("stable")));
    assert_eq!(answer.body.len(), large.len());
    assert_eq!(world.metrics().sum("unshielded_total", &[]), 1);
    let small = predict(&client, world.data).await;
    assert_eq!(small.header("x-upstream"), Some("candidate"));
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn large_answers_of_the_candidate_pass_through() {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Large(300_000)).await,
    );
    let mut world = World::with(|settings| settings.max_buffered_response = 1000).await;
    world
        .weigh(1, 1000)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    let answer = predict(&http1(), world.data).await;
    assert_eq!((answer.body.len(), answer.header("x-upstream")), (300_000, Some("candidate")));
    assert_eq!(world.metrics().arm(CANDIDATE, "success"), 1);
}
