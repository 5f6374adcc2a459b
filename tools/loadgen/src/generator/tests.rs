//! The generator against a server that misbehaves in every known way and counts its requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::{LoadGenerator, LoadgenOptions};
use crate::api;
use crate::worker::LoadPace;

const CSV: &str = "label,a,b\n3,1,2\n5,3,4\n";

/// The server's counts, and when a request misbehaves: the number of the request modulo 10.
#[derive(Default)]
struct Server {
    infer: AtomicU64,
    labels: AtomicU64,
    manners: Manners,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Manners {
    #[default]
    Bad,
    Good,
    /// Answers correctly, but ends every connection after one answer.
    Closing,
}

type Answer = Result<Response<Full<Bytes>>, &'static str>;

impl Server {
    async fn start(manners: Manners) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self::serve(listener, manners), address)
    }

    fn serve(listener: TcpListener, manners: Manners) -> Arc<Self> {
        let server = Arc::new(Self { manners, ..Self::default() });
        let shared = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| Arc::clone(&shared).answer(request));
                tokio::spawn(async move {
                    let mut http = http1::Builder::new();
                    http.keep_alive(manners != Manners::Closing);
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        server
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.map_err(|_| "body")?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        if path.ends_with("/feedback") {
            return Ok(self.feedback(&body));
        }
        assert_eq!(path, "/v2/models/digits/infer");
        self.infer.fetch_add(1, Ordering::Relaxed);
        let id = body["id"].as_str().unwrap();
        let number: u64 = id.split('-').nth(1).unwrap().parse().unwrap();
        if self.manners == Manners::Bad {
            misbehave(id, number).await
        } else {
            Ok(right(id, number))
        }
    }

    fn feedback(&self, body: &Value) -> Response<Full<Bytes>> {
        let items = body["feedback"].as_array().unwrap();
        for item in items {
            let number: u64 = item["prediction_id"].as_str().unwrap().parse().unwrap();
            assert_eq!(item["label"], if number.is_multiple_of(2) { 3 } else { 5 });
        }
        self.labels.fetch_add(items.len() as u64, Ordering::Relaxed);
        Response::new(Full::from(json!({"accepted": items.len()}).to_string()))
    }
}

/// Always predicts 3: right for every second row.
fn right(id: &str, number: u64) -> Response<Full<Bytes>> {
    let body = json!({
        "model_name": "digits", "id": id,
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [3]}],
    });
    Response::builder()
        .header("x-slipway-prediction-id", number.to_string())
        .header("x-slipway-revision", if number.is_multiple_of(4) { "candidate" } else { "stable" })
        .body(Full::from(body.to_string()))
        .unwrap()
}

async fn misbehave(id: &str, number: u64) -> Answer {
    let mut response = right(id, number);
    match number % 10 {
        1 => *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR,
        2 => *response.status_mut() = http::StatusCode::TOO_MANY_REQUESTS,
        // hyper closes the connection without an answer.
        3 => return Err("drop"),
        4 => *response.body_mut() = Full::from("<html>garbled"),
        5 => response = right("another", number),
        6 => return std::future::pending().await,
        7 => {
            drop(response.headers_mut().insert("x-slipway-shielded", "candidate".parse().unwrap()))
        }
        _ => {}
    }
    Ok(response)
}

fn options(address: SocketAddr, more: &[&str]) -> LoadgenOptions {
    let target = format!("http://{address}");
    let fixed = [
        "slipway-loadgen",
        "--target",
        &target,
        "--model",
        "digits",
        "--rows",
        "unused",
        "--rate",
        "2000",
    ];
    LoadgenOptions::parse_from(fixed.iter().chain(more))
}

#[tokio::test]
async fn every_kind_of_failure_is_counted_once() {
    let (server, address) = Server::start(Manners::Bad).await;
    let options = options(address, &["--once", "200", "--timeout", "0.3", "--connections", "8"]);
    let summary = LoadGenerator::start(&options, CSV).unwrap().finish().await.unwrap();
    assert_eq!(server.infer.load(Ordering::Relaxed), 200, "nothing is retried");
    assert_eq!((summary.sent, summary.answered, summary.failed), (200, 80, 120));
    assert_eq!((summary.in_flight, summary.skipped), (0, 0));
    let reasons: Vec<_> =
        summary.failed_by_reason.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let each = ["closed", "http_429", "http_500", "malformed_id", "malformed_json", "timeout"]
        .map(|name| (name, 20));
    assert_eq!(reasons, each);
    // Answered: 0, 7, 8 and 9 modulo 10; those with an even number are right.
    assert_eq!(summary.correct, 40);
    assert_eq!((summary.shielded, summary.by_revision["stable"].stood_in), (20, 20));
    assert_eq!(server.labels.load(Ordering::Relaxed), 80);
    assert_eq!(
        (summary.feedback.sent, summary.feedback.accepted, summary.feedback.failed),
        (80, 80, 0)
    );
}

#[tokio::test]
async fn a_good_server_gets_every_request_and_loses_none() {
    let (server, address) = Server::start(Manners::Good).await;
    let options = options(address, &["--once", "500", "--feedback-share", "0.5"]);
    let summary = LoadGenerator::start(&options, CSV).unwrap().finish().await.unwrap();
    assert_eq!(
        (summary.sent, summary.answered, summary.failed, summary.correct),
        (500, 500, 0, 250)
    );
    assert_eq!(summary.by_revision["candidate"].answered, 125);
    assert_eq!(server.labels.load(Ordering::Relaxed), 250);
    assert!(summary.to_table().contains("candidate"), "{}", summary.to_table());
}

#[tokio::test]
async fn connections_that_end_after_an_answer_lose_nothing() {
    let (server, address) = Server::start(Manners::Closing).await;
    let summary = LoadGenerator::start(&options(address, &["--once", "100"]), CSV)
        .unwrap()
        .finish()
        .await
        .unwrap();
    assert_eq!((summary.answered, summary.failed), (100, 0), "{summary:?}");
    assert_eq!(server.infer.load(Ordering::Relaxed), 100);
}

#[tokio::test]
async fn a_target_that_is_not_there_fails_every_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let summary = LoadGenerator::start(&options(address, &["--once", "5"]), CSV)
        .unwrap()
        .finish()
        .await
        .unwrap();
    assert_eq!((summary.failed, summary.failed_by_reason["connect_refused"]), (5, 5));
    assert!(summary.by_revision.is_empty());
}

#[tokio::test]
async fn a_target_that_comes_up_late_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut late =
        LoadGenerator::start(&options(address, &["--once", "5", "--wait", "60"]), CSV).unwrap();
    // At least two unsuccessful checks: the first is made at once.
    let early = tokio::time::timeout(Duration::from_millis(80), late.finish()).await;
    assert!(early.is_err(), "{early:?}");
    let listener = TcpListener::bind(address).await.unwrap();
    let server = Server::serve(listener, Manners::Good);
    let summary = late.finish().await.unwrap();
    assert_eq!((summary.answered, summary.failed), (5, 0), "{summary:?}");
    assert_eq!(server.infer.load(Ordering::Relaxed), 5);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let address = "127.0.0.1:1".parse().unwrap();
    for more in [
        ["--rate=-1"].as_slice(),
        &["--rate=0", "--once=1"],
        &["--connections=0"],
        &["--feedback-share=1.5"],
        &["--timeout=0"],
    ] {
        let mut options = options(address, &[]);
        options.update_from(std::iter::once(&"slipway-loadgen").chain(more));
        assert!(options.validate().is_err(), "{more:?}");
    }
}

/// One call of the API, without a socket.
async fn call(generator: &LoadGenerator, method: &str, uri: &str, body: &str) -> (u16, String) {
    let request =
        Request::builder().method(method).uri(uri).body(Body::from(body.to_owned())).unwrap();
    let response: Result<_, Infallible> =
        api::api_router(Arc::clone(&generator.context)).oneshot(request).await;
    let response = response.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn the_api_tells_the_account_and_sets_the_pace() {
    let (_, address) = Server::start(Manners::Bad).await;
    let mut generator =
        LoadGenerator::start(&options(address, &["--once", "20", "--timeout", "0.3"]), CSV)
            .unwrap();
    generator.finish().await.unwrap();

    let (status, text) = call(&generator, "GET", "/account", "").await;
    let account: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert_eq!((&account["sent"], &account["failed"]), (&json!(20), &json!(12)));
    assert_eq!(
        account["byRevision"]["stable"]["firstSeen"].as_str().unwrap().len(),
        "2026-01-01T00:00:00.000Z".len()
    );

    let (_, all) = call(&generator, "GET", "/account/requests?limit=1000", "").await;
    assert_eq!(all.lines().count(), 20);
    let (_, failed) =
        call(&generator, "GET", "/account/requests?failed=true&revision=candidate", "").await;
    for line in failed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert_eq!(line["revision"], "candidate");
        assert!(line["failed"].is_string() && line["correct"].is_null());
    }
    let (_, none) =
        call(&generator, "GET", "/account/requests?since=2999-01-01T00:00:00Z", "").await;
    assert_eq!(none, "");
    assert_eq!(call(&generator, "GET", "/account/requests?since=yesterday", "").await.0, 400);
    assert!(
        call(&generator, "GET", "/metrics", "")
            .await
            .1
            .contains("requests_total{outcome=\"timeout\"} 2\n")
    );

    assert_eq!(call(&generator, "POST", "/rate", r#"{"rate": 7}"#).await.0, 200);
    assert_eq!(*generator.context.pace.borrow(), LoadPace::Rate(7.0));
    assert_eq!(call(&generator, "POST", "/rate", r#"{"rate": -7}"#).await.0, 400);
    assert_eq!(call(&generator, "POST", "/reset", "").await.0, 200);
    assert_eq!(call(&generator, "GET", "/account/requests", "").await.1, "");
    generator.stop();
    assert_eq!(call(&generator, "POST", "/rate", r#"{"rate": 7}"#).await.0, 409);
}

#[tokio::test]
async fn the_pace_can_change_while_it_runs() {
    let (server, address) = Server::start(Manners::Good).await;
    let mut generator = LoadGenerator::start(&options(address, &["--rate", "0"]), CSV).unwrap();
    assert_eq!(call(&generator, "POST", "/rate", r#"{"rate": 1000}"#).await.0, 200);
    while server.infer.load(Ordering::Relaxed) < 50 {
        tokio::task::yield_now().await;
    }
    generator.stop();
    let summary = generator.finish().await.unwrap();
    assert!(summary.sent >= 50 && summary.failed == 0, "{summary:?}");
    assert_eq!(summary.sent, server.infer.load(Ordering::Relaxed));
}
