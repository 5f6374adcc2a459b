//! Full queues, deadlines, and clients that leave.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::support::{Server, answer, eventually, slow};

/// Far more work than any deadline here allows, but finite in case the cancellation fails.
const LONG: u64 = 3_000_000;

async fn running(server: &Server, n: f64) {
    eventually("in flight", async || {
        server.metric("slipway_runtime_requests_in_flight").await == n
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_429_and_all_are_counted() {
    let server = Server::start(
        "slow",
        &["--workers", "1", "--queue-capacity", "2", "--request-timeout-seconds", "2"],
    );
    let requests = (0..20).map(|_| async {
        let response =
            server.post("/v2/models/m/infer").body(slow(LONG).to_string()).send().await.unwrap();
        let retry = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        let (status, body) = answer(response).await;
        match status {
            429 => assert!(
                retry.as_deref() == Some("1")
                    && body["error"].as_str().unwrap().contains("queue is full")
            ),
            504 => {
                assert!(body["error"].as_str().unwrap().contains("time limit of 2000 ms"), "{body}")
            }
            _ => panic!("{status} {body}"),
        }
        status
    });
    let statuses = futures::future::join_all(requests).await;
    let busy = statuses.iter().filter(|s| **s == 429).count() as f64;
    // One runs and two wait; one more may have been queued while the worker took the first.
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
    let request = server
        .post("/v2/models/m/infer")
        .header("x-request-timeout-ms", "100")
        .body(slow(LONG).to_string());
    let (status, body) = answer(request.send().await.unwrap()).await;
    assert!(status == 504 && body["error"].as_str().unwrap().contains("100 ms"), "{status} {body}");
    // The protocol's own parameter, in microseconds; also as a string, which Triton's clients send.
    let mut body = slow(LONG);
    for timeout in [json!(50_000), json!("50000")] {
        body["parameters"] = json!({"timeout": timeout});
        assert_eq!(server.infer(&body).await.0, 504);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "nobody waited for the work");
    let request = server
        .post("/v2/models/m/infer")
        .header("x-request-timeout-ms", "soon")
        .body(slow(1).to_string());
    assert_eq!(request.send().await.unwrap().status(), 400);
    assert_eq!((server.code(504).await, server.code(400).await), (3.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_clients_that_left_is_dropped() {
    let server = Server::start("slow", &["--workers", "1"]);
    let address = server.api.trim_start_matches("http://").to_owned();
    let mut streams = Vec::new();
    let body = slow(LONG).to_string();
    for n in 1..=5_u8 {
        let head = format!(
            "POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        running(&server, f64::from(n)).await;
        streams.push(stream);
    }
    drop(streams);
    eventually("counted as left", async || server.code(499).await == 5.0).await;
    // The four waiting requests never run, and the running one is cancelled.
    assert_eq!(server.infer(&slow(1)).await.0, 200);
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 6.0);
    assert_eq!(server.metric("slipway_runtime_inference_duration_seconds_count").await, 1.0);
}

/// A run without a waiting client is cancelled, whether the client left or its deadline passed: the
/// only worker is free for the next request at once.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_nobody_waits_for_are_stopped() {
    let server = Server::start("slow", &["--workers", "1"]);
    let soon = |body: &serde_json::Value| {
        server
            .post("/v2/models/m/infer")
            .header("x-request-timeout-ms", "20000")
            .body(body.to_string())
            .send()
    };
    // Ten times longer than any wait in this test.
    let endless = slow(100 * LONG);
    let late = server
        .post("/v2/models/m/infer")
        .header("x-request-timeout-ms", "100")
        .body(endless.to_string());
    assert_eq!(late.send().await.unwrap().status(), 504);
    assert_eq!(soon(&slow(1)).await.unwrap().status(), 200);
    let leaves = tokio::spawn(soon(&endless));
    running(&server, 1.0).await;
    leaves.abort();
    assert_eq!(soon(&slow(1)).await.unwrap().status(), 200);
    // Neither counts as a failure of the model.
    running(&server, 0.0).await;
    assert_eq!(
        (server.code(500).await, server.code(504).await, server.code(499).await),
        (0.0, 1.0, 1.0)
    );
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 4.0);
}

/// A client that cancels many requests before they are accepted does not end the other requests of
/// the connection: the gateway's connection carries the requests of all clients.
#[tokio::test(flavor = "multi_thread")]
async fn impatient_clients_end_no_connection() {
    let server = Server::start("slow", &["--workers", "1"]);
    let client = super::grpc::client(&server).await;
    let patient = tokio::spawn(grpc(&client, 0).await);
    for _ in 0..10 {
        let mut impatient = tokio::task::JoinSet::new();
        for _ in 0..400 {
            impatient.spawn(grpc(&client, 3).await);
        }
        tokio::task::yield_now().await;
        impatient.shutdown().await;
    }
    assert_eq!(patient.await.unwrap(), Some(200));
    assert_eq!(grpc(&client, 0).await.await, Some(200), "over the same connection");
}

/// One worker, and one long request before the others: waiting requests are served by priority, and
/// in order of arrival within a priority.
#[tokio::test(flavor = "multi_thread")]
async fn higher_priorities_are_served_first() {
    let server = Server::start("slow", &["--workers", "1", "--batching=disabled"]);
    let queued = async |n: f64| {
        eventually("queued", async || server.metric("slipway_runtime_requests_queued{").await == n)
            .await;
    };
    let first =
        tokio::spawn(server.post("/v2/models/m/infer").body(slow(100_000).to_string()).send());
    running(&server, 1.0).await;
    queued(0.0).await;
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (n, (name, priority)) in
        [("last", 3), ("default", 0), ("first", 1), ("second", 1)].into_iter().enumerate()
    {
        let mut body = slow(3000);
        body["parameters"] = json!({"priority": priority});
        let (request, order) = (
            server.post("/v2/models/m/infer").body(body.to_string()),
            std::sync::Arc::clone(&order),
        );
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

/// Number of requests of each protocol; every twelfth client leaves before its answer.
const EACH: usize = 120;
const LEAVERS: usize = EACH / 12;

/// The parameters of request `n`: rounds of work, its time limit in milliseconds, and whether its
/// datatype is wrong. Short and long work, limits that are met and missed, in a repeating order;
/// the clients of long requests with a distant limit leave.
fn mixed(n: usize) -> (u64, u64, &'static str, bool) {
    let (rounds, timeout) = ([1, 50, 5000, LONG][n % 4], [30_000, 20, 200][n % 3]);
    (rounds, timeout, if n % 10 == 8 { "FP32" } else { "INT64" }, n % 12 == 3)
}

/// The answer's HTTP code, or `None` for a client that left.
async fn rest(server: &Server, n: usize) -> impl Future<Output = Option<u16>> + Send + 'static {
    let (rounds, timeout, datatype, leaves) = mixed(n);
    let mut body = slow(rounds);
    body["inputs"][0]["datatype"] = json!(datatype);
    let request = server
        .post("/v2/models/m/infer")
        .header("x-request-timeout-ms", timeout.to_string())
        .body(body.to_string());
    async move {
        let limit = Duration::from_millis(if leaves { 300 } else { 60_000 });
        let answer = tokio::time::timeout(limit, request.send()).await;
        assert!(leaves || answer.is_ok(), "request {n} was not answered");
        answer.ok().map(|response| response.unwrap().status().as_u16())
    }
}

/// The same over gRPC, with codes converted to HTTP's.
async fn grpc(
    client: &super::grpc::Client,
    n: usize,
) -> impl Future<Output = Option<u16>> + Send + 'static {
    use slipway_oip::inference as pb;

    let (rounds, timeout, datatype, leaves) = mixed(n);
    let contents = pb::InferTensorContents {
        int64_contents: vec![i64::try_from(rounds).unwrap()],
        ..Default::default()
    };
    let input = pb::model_infer_request::InferInputTensor {
        name: "rounds".into(),
        datatype: datatype.into(),
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
    let mut client = client.clone();
    async move {
        let limit = Duration::from_millis(if leaves { 300 } else { 60_000 });
        let answer = tokio::time::timeout(limit, client.model_infer(request)).await;
        assert!(leaves || answer.is_ok(), "gRPC request {n} was not answered");
        Some(match answer.ok()? {
            Ok(_) => 200,
            Err(status) => match status.code() {
                tonic::Code::InvalidArgument => 400,
                tonic::Code::ResourceExhausted => 429,
                tonic::Code::DeadlineExceeded => 504,
                // tonic's client measures the deadline as well, and leaves when it passes.
                tonic::Code::Cancelled => return None,
                other => panic!("gRPC request {n}: {other:?} {status}"),
            },
        })
    }
}

/// Every received request ends in exactly one outcome, under overload, deadlines, and clients that
/// leave, in both protocols. Every client compares its answer with the server's counts.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_conserved() {
    let server = Server::start("slow", &["--workers", "2", "--queue-capacity", "4"]);
    let client = super::grpc::client(&server).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..EACH {
        tasks.spawn(rest(&server, n).await);
        tasks.spawn(grpc(&client, n).await);
    }
    let mut answered = std::collections::BTreeMap::<u16, usize>::new();
    while let Some(answer) = tasks.join_next().await {
        if let Some(code) = answer.unwrap() {
            *answered.entry(code).or_default() += 1;
        }
    }
    running(&server, 0.0).await;
    let total = server.metric("slipway_runtime_requests_total").await;
    let (_, stats) = server.get("/v2/models/m/stats").await;
    let of =
        |part: &str| stats["model_stats"][0]["inference_stats"][part]["count"].as_f64().unwrap();
    let told = answered.values().sum::<usize>();
    assert!(
        told >= EACH - LEAVERS,
        "who does not leave is answered, at least over REST: {answered:?}"
    );
    // A request whose client left before it was read was never received; every received request is
    // in exactly one outcome.
    assert!((told as f64..=2.0 * EACH as f64).contains(&total), "{total} received, {answered:?}");
    let mut outcomes = 0.0;
    let mut unseen = 0.0;
    for code in [200, 400, 429, 499, 504] {
        let counted = server.code(code).await;
        let seen = answered.remove(&code).unwrap_or(0) as f64;
        assert!(counted >= seen, "{code}: {counted} counted, {seen} answered");
        outcomes += counted;
        unseen += counted - seen;
    }
    assert!(answered.is_empty(), "codes that are not counted: {answered:?}");
    assert_eq!(outcomes, total);
    assert_eq!(unseen, total - told as f64, "who was not told has left");
    // A request whose client left or whose deadline passed before the model is known (its message
    // is not read yet) is counted for the server and for no model.
    let unknown = total - of("success") - of("fail");
    let ended_early = server.code(499).await + server.code(504).await;
    assert!((0.0..=ended_early).contains(&unknown), "{unknown} of {total} for no model: {stats}");
    assert_eq!(server.code(200).await, of("success"));
    // Only wrong requests are answered with 400.
    assert!(server.code(400).await <= 2.0 * EACH as f64 / 10.0);
    assert!(server.code(429).await + server.code(504).await > 0.0, "no overload: {outcomes}");
}

/// A burst for a model that is faster than its queue could fill is accepted, however many requests
/// arrive in one turn of the event loop.
#[tokio::test]
async fn bursts_do_not_fill_the_queue_of_a_fast_model() {
    use slipway_runtime_engine::batch::RequestPriority;
    use slipway_runtime_engine::pool::{PoolOptions, WorkerPool};
    use slipway_runtime_engine::tensor::{Tensor, TensorData};

    const CAPACITY: usize = 64;
    let engines = slipway_runtime_engine::session::load_engines(
        super::support::onnxruntime(),
        &super::support::model("affine"),
        1,
        1,
        None,
    );
    let options = PoolOptions { capacity: CAPACITY, max_rows: 16, batching: true, bounded: true };
    let pool = WorkerPool::start(engines.unwrap(), options, std::sync::Arc::default()).unwrap();
    let until = Instant::now() + super::support::DEADLINE;
    let one = async |x: f32| {
        let inputs = vec![Tensor { shape: vec![1, 2], data: TensorData::F32(vec![x, 0.0]) }];
        pool.run(inputs, 1, until, RequestPriority::default()).await
    };
    // On a machine under load the model may seem slow for a while; then its queue does fill.
    loop {
        // It counts as fast after fast runs were measured.
        assert!(one(0.0).await.is_ok());
        let burst = futures::future::join_all((0..5 * CAPACITY).map(|n| one(n as f32))).await;
        if burst.iter().all(Result::is_ok) {
            for (n, done) in burst.into_iter().enumerate() {
                assert_eq!(
                    done.unwrap().outputs[0].data,
                    TensorData::F32(vec![2.0 * n as f32 + 1.0, 1.0]),
                    "its own answer"
                );
            }
            return;
        }
        assert!(Instant::now() < until, "requests of a burst are refused");
    }
}
