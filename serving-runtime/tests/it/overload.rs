//! Full queues, deadlines, and clients that leave.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::support::{Server, answer, eventually, slow};

/// Far more work than any deadline here allows, and an end to it if something goes wrong.
const LONG: u64 = 3_000_000;

async fn running(server: &Server, n: f64) {
    eventually("in flight", async || server.metric("slipway_runtime_requests_in_flight").await == n).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_429_and_all_are_counted() {
    let server = Server::start("slow", &["--workers", "1", "--queue-capacity", "2", "--request-timeout-seconds", "2"]);
    let requests = (0..20).map(|_| async {
        let response = server.post("/v2/models/m/infer").body(slow(LONG).to_string()).send().await.unwrap();
        let retry = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        let (status, body) = answer(response).await;
        match status {
            429 => assert!(retry.as_deref() == Some("1") && body["error"].as_str().unwrap().contains("queue is full")),
            504 => assert!(body["error"].as_str().unwrap().contains("time limit of 2000 ms"), "{body}"),
            _ => panic!("{status} {body}"),
        }
        status
    });
    let statuses = futures::future::join_all(requests).await;
    let busy = statuses.iter().filter(|s| **s == 429).count() as f64;
    // One runs and two wait; one more may have slipped in while the worker took the first.
    assert!((17.0..=18.0).contains(&busy), "{statuses:?}");
    assert_eq!((server.code(429).await, server.code(504).await), (busy, 20.0 - busy));
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 20.0);
    assert!(server.metric("slipway_runtime_requests_queued{").await <= 2.0);
    running(&server, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_ask_for_less_time() {
    let server = Server::start("slow", &["--workers", "1"]);
    let begun = Instant::now();
    let request = server.post("/v2/models/m/infer").header("x-request-timeout-ms", "100").body(slow(LONG).to_string());
    let (status, body) = answer(request.send().await.unwrap()).await;
    assert!(status == 504 && body["error"].as_str().unwrap().contains("100 ms"), "{status} {body}");
    // The protocol's own parameter, in microseconds; as a text too, which is how Triton's clients send it.
    let mut body = slow(LONG);
    for timeout in [json!(50_000), json!("50000")] {
        body["parameters"] = json!({"timeout": timeout});
        assert_eq!(server.infer(&body).await.0, 504);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "nobody waited for the work");
    let request = server.post("/v2/models/m/infer").header("x-request-timeout-ms", "soon").body(slow(1).to_string());
    assert_eq!(request.send().await.unwrap().status(), 400);
    assert_eq!((server.code(504).await, server.code(400).await), (3.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_clients_that_left_is_dropped() {
    let server = Server::start("slow", &["--workers", "1"]);
    let address = server.api.trim_start_matches("http://").to_owned();
    let mut streams = Vec::new();
    for n in 1..=5_u8 {
        let body = slow(if n == 1 { 300_000 } else { LONG }).to_string();
        let head =
            format!("POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        running(&server, f64::from(n)).await;
        streams.push(stream);
    }
    drop(streams);
    eventually("counted as left", async || server.code(499).await == 5.0).await;
    // The four that waited are never run, so this one is answered long before they could be.
    assert_eq!(server.infer(&slow(1)).await.0, 200);
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 6.0);
    assert_eq!(server.metric("slipway_runtime_inference_duration_seconds_count").await, 1.0);
}
