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

/// One worker and one long request before them: what waits is served by priority, and within one by arrival.
#[tokio::test(flavor = "multi_thread")]
async fn higher_priorities_are_served_first() {
    let server = Server::start("slow", &["--workers", "1", "--no-batching"]);
    let queued = async |n: f64| {
        eventually("queued", async || server.metric("slipway_runtime_requests_queued{").await == n).await;
    };
    let first = tokio::spawn(server.post("/v2/models/m/infer").body(slow(100_000).to_string()).send());
    running(&server, 1.0).await;
    queued(0.0).await;
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (n, (name, priority)) in [("last", 3), ("default", 0), ("first", 1), ("second", 1)].into_iter().enumerate() {
        let mut body = slow(3000);
        body["parameters"] = json!({"priority": priority});
        let (request, order) =
            (server.post("/v2/models/m/infer").body(body.to_string()), std::sync::Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            assert_eq!(request.send().await.unwrap().status(), 200);
            order.lock().unwrap().push(name);
        }));
        queued((n + 1) as f64).await;
    }
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), ["first", "second", "default", "last"]);
    let mut body = slow(1);
    body["parameters"] = json!({"priority": 4});
    assert_eq!(server.infer(&body).await.0, 400);
}

/// What came in is what went out, whatever happened: overload, deadlines, clients that leave, in both protocols.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_conserved() {
    use slipway_oip::inference as pb;
    use slipway_oip::inference::model_infer_request::InferInputTensor;

    const EACH: usize = 120;
    let server = Server::start("slow", &["--workers", "2", "--queue-capacity", "4"]);
    let grpc = super::grpc::client(&server).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..EACH {
        // Short and long work, with and without a time limit, and some wrong: all that can happen, and in an order that repeats.
        let (rounds, timeout) = ([1, 50, 5000, LONG][n % 4], [30_000, 20, 200][n % 3]);
        let mut body = slow(rounds);
        if n % 10 == 9 {
            body["inputs"][0]["datatype"] = json!("FP32");
        }
        let request = server
            .post("/v2/models/m/infer")
            .header("x-request-timeout-ms", timeout.to_string())
            .body(body.to_string());
        let mut client = grpc.clone();
        tasks.spawn(async move {
            // The long ones without a limit of their own are those whose client leaves.
            let _ = tokio::time::timeout(Duration::from_millis(400), request.send()).await;
        });
        tasks.spawn(async move {
            let contents =
                pb::InferTensorContents { int64_contents: vec![i64::try_from(rounds).unwrap()], ..Default::default() };
            let input = InferInputTensor {
                name: "rounds".into(),
                datatype: if n % 10 == 9 { "FP32" } else { "INT64" }.into(),
                shape: vec![1],
                contents: Some(contents),
                ..Default::default()
            };
            let mut request = tonic::Request::new(pb::ModelInferRequest {
                model_name: "m".into(),
                inputs: vec![input],
                ..Default::default()
            });
            request.set_timeout(Duration::from_millis(timeout));
            let _ = tokio::time::timeout(Duration::from_millis(400), client.model_infer(request)).await;
        });
    }
    while tasks.join_next().await.is_some() {}
    running(&server, 0.0).await;
    let total = server.metric("slipway_runtime_requests_total").await;
    let (_, stats) = server.get("/v2/models/m/stats").await;
    let of = |part: &str| stats["model_stats"][0]["inference_stats"][part]["count"].as_f64().unwrap();
    // A client that left before its request was read was never received; everything that was is in exactly one outcome.
    assert!(total <= 2.0 * EACH as f64 && total > EACH as f64, "{total}");
    // Who leaves, or whose time is over, before the model is known (a message that is not read yet) is counted for the server and for no model.
    let unknown = total - of("success") - of("fail");
    let ended_early = server.code(499).await + server.code(504).await;
    assert!((0.0..=ended_early).contains(&unknown), "{unknown} of {total} for no model: {stats}");
    // Nobody else is told to be wrong than those who are.
    assert!(server.code(400).await <= 2.0 * EACH as f64 / 10.0);
    assert_eq!(server.code(200).await, of("success"));
    let mut outcomes = 0.0;
    for code in [200, 400, 429, 499, 504] {
        outcomes += server.code(code).await;
    }
    assert_eq!(outcomes, total);
    assert!(server.code(429).await > 0.0 && server.code(504).await + server.code(499).await > 0.0);
}
