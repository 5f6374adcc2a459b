//! Prediction ids and feedback: which gateway issues and opens ids, and that each counts once, for
//! the right revision.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use slipway_gateway_feedback::peers::GatewayPeer;
use slipway_gateway_policy::config::TrafficWeights;
use slipway_prediction_id::{
    ACCESS_PURPOSE, PREDICTION_ID_PURPOSE, PredictedLabel, PredictionId, PredictionIdSealer,
    PredictionReport, derive_key,
};
use support::client::{Answer, grpc, http1, infer, predict, send};
use support::upstream::{Mood, Upstream};
use support::{CANDIDATE, MASTER, STABLE, TOKEN, World};

const CALL: &str = "/inference.GRPCInferenceService/ModelInfer";

fn report(sample: u64, label: i64) -> String {
    PredictionReport { sample, labels: vec![Some(PredictedLabel::Number(label))] }.encode()
}

fn sealer(master: &[u8; 32], model: &str) -> PredictionIdSealer {
    PredictionIdSealer::new(&derive_key(master, PREDICTION_ID_PURPOSE, &format!("uid-of-{model}")))
        .unwrap()
}

fn open(id: &str) -> PredictionId {
    sealer(&MASTER, "digits").open(id).unwrap()
}

/// A gateway with a server that predicts 3.
async fn predicting(pod_name: &str) -> (World, Upstream) {
    let server = Upstream::start("server", Mood::Predicts(report(77, 3))).await;
    let pod_name = pod_name.to_owned();
    let mut world = World::with(|settings| settings.pod_name = pod_name).await;
    world.model().outcomes = vec!["conversion".into()];
    world.weigh(1, 0).endpoints(STABLE, &[server.addr]).apply();
    (world, server)
}

async fn id_of_one(world: &World) -> String {
    predict(&http1(), world.data).await.header("x-slipway-prediction-id").unwrap().to_owned()
}

async fn post(to: SocketAddr, token: Option<&str>, path: &str, body: &Value) -> Answer {
    let mut request = Request::post(format!("http://{to}{path}")).header("host", "digits");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    send(&http1(), request.body(Full::from(body.to_string())).unwrap()).await.unwrap()
}

/// The answer to feedback with the token.
async fn feed(world: &World, items: &[Value]) -> Value {
    let answer = post(
        world.private,
        Some(TOKEN),
        "/v2/models/digits/feedback",
        &json!({ "feedback": items }),
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn label(id: &str, label: i64) -> Value {
    json!({"prediction_id": id, "label": label})
}

#[tokio::test]
async fn an_answer_has_an_id_that_the_gateway_seals() {
    let (world, server) = predicting("a").await;
    let answer = predict(&http1(), world.data).await;
    let id = open(answer.header("x-slipway-prediction-id").unwrap());
    assert_eq!((id.revision.as_str(), id.labels), (STABLE, vec![Some(PredictedLabel::Number(3))]));
    assert_eq!(
        answer.header("x-slipway-prediction"),
        None,
        "what the pod reports is for the gateway"
    );
    assert_eq!(answer.header("x-slipway-revision"), Some(STABLE), "a pod does not say who it is");
    // A server without prediction reports: outcomes count for it, labels do not.
    server.set(Mood::Good);
    let id = id_of_one(&world).await;
    assert_eq!(open(&id).labels, vec![]);
    let outcome = json!({"prediction_id": id, "outcome": {"name": "conversion", "value": 1}});
    let summary = feed(&world, &[outcome, label(&id, 3)]).await;
    assert_eq!(summary, json!({"accepted": 1, "rejected": 1, "reasons": {"no_prediction": 1}}));
}

#[tokio::test]
async fn a_call_of_grpc_has_an_id_and_what_failed_has_none() {
    let (mut world, server) = predicting("a").await;
    world.declare_address().apply();
    let call = async || {
        grpc(world.data, &world.data.to_string(), CALL, &[], Full::<Bytes>::default())
            .await
            .unwrap()
    };
    assert_eq!(
        open(call().await.header("x-slipway-prediction-id").unwrap()).labels,
        vec![Some(PredictedLabel::Number(3))]
    );
    server.set(Mood::GrpcTrailersOnly("13"));
    assert_eq!(call().await.header("x-slipway-prediction-id"), None);
    server.set(Mood::Status(400));
    assert_eq!(predict(&http1(), world.data).await.header("x-slipway-prediction-id"), None);
}

#[tokio::test]
async fn no_client_is_told_its_arm_unless_the_owner_says_so() {
    let (mut world, server) = predicting("a").await;
    world.model().reveals_revision = false;
    world.apply();
    let mut lengths = HashSet::new();
    for percent in [0, 1000] {
        world.weigh(i64::from(percent) + 2, percent).endpoints(CANDIDATE, &[server.addr]).apply();
        let answer = predict(&http1(), world.data).await;
        let told = answer.headers.iter().any(|(_, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            value.contains(STABLE) || value.contains(CANDIDATE)
        });
        assert!(!told, "{:?}", answer.headers);
        let id = answer.header("x-slipway-prediction-id").unwrap();
        assert_eq!(open(id).revision, if percent == 0 { STABLE } else { CANDIDATE });
        lengths.insert(id.len());
    }
    assert_eq!(lengths.len(), 1);
}

#[tokio::test]
async fn feedback_counts_once_for_the_revision_that_predicted() {
    let (world, _server) = predicting("a").await;
    let (right, wrong) = (id_of_one(&world).await, id_of_one(&world).await);
    let summary = feed(&world, &[label(&right, 3), label(&wrong, 4), label(&right, 3)]).await;
    assert_eq!(summary, json!({"accepted": 2, "rejected": 1, "reasons": {"duplicate": 1}}));
    let metrics = world.metrics();
    for result in ["correct", "incorrect"] {
        assert_eq!(metrics.sum("feedback_total", &[("revision", STABLE), ("result", result)]), 1);
    }
    assert_eq!(metrics.sum("feedback_rejected_total", &[("reason", "duplicate")]), 1);
}

#[tokio::test]
async fn what_no_gateway_sealed_counts_nothing() {
    let (world, _server) = predicting("a").await;
    let (now, report) = (
        1_800_000_000,
        PredictionReport { sample: 1, labels: vec![Some(PredictedLabel::Number(3))] },
    );
    let real = id_of_one(&world).await;
    let forged = [
        sealer(&[8; 32], "digits").seal(STABLE, now, &report).unwrap(),
        sealer(&MASTER, "other").seal(STABLE, now, &report).unwrap(),
        format!("{}A", &real[..real.len() - 1]),
        format!("{real}A"),
        "v1.aaaaaaaaaa.6553f100.0000000000000001.AQY".into(),
        String::new(),
    ];
    let forged: Vec<Value> =
        forged.iter().filter(|id| **id != real).map(|id| label(id, 3)).collect();
    let summary = feed(&world, &forged).await;
    assert_eq!(
        summary,
        json!({"accepted": 0, "rejected": forged.len(), "reasons": {"invalid_id": forged.len()}})
    );
    assert_eq!(world.metrics().sum("feedback_total", &[]), 0);
}

#[tokio::test]
async fn gateways_count_an_id_once_among_them() {
    let ((a, server), (mut b, _)) = (predicting("gateway-a").await, predicting("gateway-b").await);
    b.endpoints(STABLE, &[server.addr]).apply();
    let peer = |name: &str, world: &World| GatewayPeer { name: name.into(), addr: world.private };
    let both = [peer("gateway-a", &a), peer("gateway-b", &b)];
    for world in [&a, &b] {
        world.gateway.feedback.peers.set(both.clone());
    }
    let mut items = Vec::new();
    for _ in 0..20 {
        items.push(label(&id_of_one(&a).await, 3));
    }
    let all = json!({"accepted": 20, "rejected": 0, "reasons": {}});
    assert_eq!(feed(&a, &items).await, all);
    assert_eq!(
        feed(&b, &items).await,
        json!({"accepted": 0, "rejected": 20, "reasons": {"duplicate": 20}})
    );
    let count = |world: &World| world.metrics().sum("feedback_total", &[]);
    assert_eq!(count(&a) + count(&b), 20);
    assert!(count(&a) > 0 && count(&b) > 0, "each has its share");
    // A replaced gateway has lost its memory: feedback on its share counts once more, and no more
    // often.
    let (c, _server) = predicting("gateway-b").await;
    a.gateway.feedback.peers.set([peer("gateway-a", &a), peer("gateway-b", &c)]);
    c.gateway.feedback.peers.set([peer("gateway-a", &a), peer("gateway-b", &c)]);
    let share = count(&b);
    assert_eq!(feed(&a, &items).await["accepted"], share);
    assert_eq!(feed(&c, &items).await["accepted"], 0);
}

#[tokio::test]
async fn the_next_gateway_counts_for_one_that_does_not_answer() {
    let (a, _server) = predicting("gateway-a").await;
    let gone = GatewayPeer { name: "gateway-b".into(), addr: support::upstream::nobody().await };
    a.gateway.feedback.peers.set([gone]);
    let mut items = Vec::new();
    for _ in 0..20 {
        items.push(label(&id_of_one(&a).await, 3));
    }
    assert_eq!(feed(&a, &items).await["accepted"], 20);
    assert_eq!(feed(&a, &items).await["rejected"], 20);
}

#[tokio::test]
async fn only_who_shows_the_token_sends_feedback() {
    let (world, _server) = predicting("a").await;
    let body = json!({"feedback": [label(&id_of_one(&world).await, 3)]});
    let path = "/v2/models/digits/feedback";
    for token in [None, Some("0123456789abcdef0123456789abcdef0123456789b"), Some("")] {
        assert_eq!(
            post(world.private, token, path, &body).await.status,
            StatusCode::UNAUTHORIZED,
            "{token:?}"
        );
    }
    let answer = post(world.data, Some(TOKEN), path, &body).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("port `private` (8081)"), "{}", answer.body);
    assert_eq!(world.metrics().sum("feedback_total", &[]), 0);
    assert_eq!(post(world.private, Some(TOKEN), path, &body).await.status, StatusCode::OK);
}

#[tokio::test]
async fn feature_rows_and_the_repository_are_for_those_who_show_the_token() {
    let (world, server) = predicting("a").await;
    for path in ["/v2/models/digits/features/user-1", "/v2/repository/models/digits/unload"] {
        assert_eq!(
            post(world.data, Some(TOKEN), path, &json!({})).await.status,
            StatusCode::FORBIDDEN,
            "{path}"
        );
        assert_eq!(
            post(world.private, None, path, &json!({})).await.status,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
        assert_eq!(server.served(), 0);
    }
    let answer =
        post(world.private, Some(TOKEN), "/v2/models/digits/features/user-1", &json!({})).await;
    assert_eq!((answer.status, server.served()), (StatusCode::OK, 1));
    let told = server.last.lock().unwrap().take().unwrap();
    assert_eq!(told.headers.get("authorization"), None, "the token is the gateway's to see");
    assert_eq!(
        told.headers["x-slipway-access"],
        hex::encode(derive_key(&MASTER, ACCESS_PURPOSE, "uid-of-digits")).as_str()
    );
    assert_eq!(answer.header("x-slipway-revision"), Some(STABLE), "whom this may be told");
}

#[tokio::test]
async fn without_a_secret_nobody_is_let_in_and_predictions_go_on() {
    let (world, _server) = predicting("a").await;
    let id = id_of_one(&world).await;
    for file in ["master", "token"] {
        std::fs::remove_file(world.keys.path().join(file)).unwrap();
    }
    world.gateway.keys.reload();
    let answer = predict(&http1(), world.data).await;
    assert_eq!((answer.status, answer.header("x-slipway-prediction-id")), (StatusCode::OK, None));
    let body = json!({"feedback": [label(&id, 3)]});
    let answer = post(world.private, Some(TOKEN), "/v2/models/digits/feedback", &body).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.contains("slipway-keys"), "{}", answer.body);
    assert_eq!(world.metrics().sum("key", &[]), 0);
}

#[tokio::test]
async fn an_id_counts_after_the_key_was_replaced() {
    let (world, _server) = predicting("a").await;
    let id = id_of_one(&world).await;
    std::fs::write(world.keys.path().join("master"), [9; 32]).unwrap();
    world.gateway.keys.reload();
    assert_eq!(feed(&world, &[label(&id, 3)]).await["accepted"], 1);
    assert!(sealer(&[9; 32], "digits").open(&id_of_one(&world).await).is_ok());
}

#[tokio::test]
async fn what_a_preview_answers_has_no_id() {
    let (mut world, server) = predicting("a").await;
    world.endpoints(CANDIDATE, &[server.addr]);
    if let Some(TrafficWeights { preview, .. }) = &mut world.model().weights {
        *preview = Some(CANDIDATE.into());
    }
    world.apply();
    let ask = async |to: SocketAddr| {
        let request = infer(to)
            .header("host", "digits-preview")
            .header("authorization", format!("Bearer {TOKEN}"));
        send(&http1(), request.body(Full::default()).unwrap()).await.unwrap()
    };
    assert_eq!(ask(world.data).await.status, StatusCode::FORBIDDEN);
    let answer = ask(world.private).await;
    assert_eq!((answer.status, answer.header("x-slipway-prediction-id")), (StatusCode::OK, None));
}
