//! A broken candidate causes no error for a gRPC client, whatever its status is.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::client::{self, send};
use support::upstream::{Mood, Upstream};
use support::{CANDIDATE, STABLE, World};

/// A gateway that sends all traffic to the candidate.
async fn all_to_candidate(stable: Mood, candidate: Mood) -> (World, Upstream, Upstream) {
    let (stable, candidate) =
        (Upstream::start("stable", stable).await, Upstream::start("candidate", candidate).await);
    let mut world = World::new().await;
    world
        .declare_address()
        .weigh(1, 1000)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    (world, stable, candidate)
}

fn model_infer(world: &World) -> Request<Full<Bytes>> {
    let url = format!("http://{}/inference.GRPCInferenceService/ModelInfer", world.data);
    let request =
        Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
    request.body(Full::from("message")).unwrap()
}

#[tokio::test]
async fn a_grpc_status_is_a_failure_wherever_it_stands() {
    for mood in [Mood::Grpc("13"), Mood::GrpcTrailersOnly("14"), Mood::Grpc("8"), Mood::Reset] {
        let (world, _stable, _candidate) = all_to_candidate(Mood::Good, mood.clone()).await;
        let answer = send(&client::http2(), model_infer(&world)).await.unwrap();
        let trailers = answer.trailers.expect("trailers");
        assert_eq!(
            (answer.body.as_str(), &trailers["grpc-status"], &trailers["x-trailer"]),
            ("message", &"0".parse().unwrap(), &"kept".parse().unwrap()),
            "{mood:?}"
        );
        assert_eq!(answer.headers["x-slipway-shielded"], CANDIDATE);
        world.metrics().assert_conserved();
    }
}

/// Servers that send an error after an empty head, as those of the C++ library do: stable's outcome
/// is known only at the end of its answer.
#[tokio::test]
async fn a_grpc_mistake_of_the_client_is_not_blamed_on_the_candidate() {
    let (world, stable, candidate) = all_to_candidate(Mood::Grpc("3"), Mood::Grpc("3")).await;
    let client = client::http2();
    let answer = send(&client, model_infer(&world)).await.unwrap();
    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "3");
    let metrics = world.metrics();
    assert_eq!(
        (metrics.arm(CANDIDATE, "client_error"), metrics.arm(CANDIDATE, "contract_error")),
        (1, 0)
    );

    // When stable answers successfully, the mistake is the candidate's.
    stable.set(Mood::Good);
    let answer = send(&client, model_infer(&world)).await.unwrap();
    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
    assert_eq!(world.metrics().arm(CANDIDATE, "contract_error"), 1);

    // Both fail: the cause is the request rather than the candidate, and the client gets stable's
    // answer.
    stable.set(Mood::Grpc("13"));
    candidate.set(Mood::Grpc("13"));
    for _ in 0..3 {
        let answer = send(&client, model_infer(&world)).await.unwrap();
        assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "13");
    }
    let metrics = world.metrics();
    assert_eq!(metrics.client("server_error"), 3);
    assert_eq!(metrics.sum("braked", &[("revision", CANDIDATE)]), 0);
    metrics.assert_conserved();
}

/// DEADLINE_EXCEEDED, UNKNOWN, INTERNAL and UNAVAILABLE correspond to 5xx; each counts against the
/// candidate and reaches no client.
#[tokio::test]
async fn grpc_failures_have_their_outcomes() {
    for (status, outcome) in
        [("2", "server_error"), ("4", "timeout"), ("13", "server_error"), ("14", "server_error")]
    {
        let (world, _stable, _candidate) = all_to_candidate(Mood::Good, Mood::Grpc(status)).await;
        let answer = send(&client::http2(), model_infer(&world)).await.unwrap();
        assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
        let metrics = world.metrics();
        assert_eq!(
            (
                metrics.arm(CANDIDATE, outcome),
                metrics.arm(STABLE, "success"),
                metrics.client("success")
            ),
            (1, 1, 1)
        );
        metrics.assert_conserved();
    }
}
