//! Callbacks to a local receiver.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

use super::super::broker::{Broker, Kind};
use super::super::support::{DEADLINE, Server, eventually};
use super::{affine, post, server, settled, until, worker};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A call that was received.
#[derive(Debug, Clone)]
struct Call {
    headers: HashMap<String, String>,
    body: Vec<u8>,
    path: String,
}

impl Call {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn verify(&self, key: &str) -> bool {
        let receiver = match key.starts_with("whsec_") {
            true => Webhook::new(key),
            false => Webhook::from_bytes(key.into()),
        };
        let headers = HeaderMap::try_from(&self.headers).unwrap();
        receiver.unwrap().verify(&self.body, &headers).is_ok()
    }
}

/// A receiver whose answer depends on the number of the call.
struct Receiver {
    address: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Receiver {
    async fn start(
        answer: impl Fn(usize) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (calls, answer) = (Arc::<Mutex<Vec<Call>>>::default(), Arc::new(answer));
        let kept = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (calls, answer) = (Arc::clone(&calls), Arc::clone(&answer));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes().to_vec();
                        let headers = head
                            .headers
                            .iter()
                            .map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned()))
                            .collect();
                        let mut calls = calls.lock().unwrap();
                        calls.push(Call { headers, body, path: head.uri.path().to_owned() });
                        Ok::<_, Infallible>(answer(calls.len()))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, calls }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

fn code(code: u16) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::default()).unwrap()
}

fn job(url: &str) -> Value {
    let mut job = affine(2.0);
    job["callback_url"] = json!(url);
    job
}

fn calling(broker: &Broker, args: &[&str]) -> Server {
    let common = [
        "--callback-signing-key",
        KEY,
        "--callback-backoff-millis",
        "20",
        "--callback-timeout-seconds",
        "1",
    ];
    worker(broker, "affine", &[&common[..], &["--callback-allow", "127.0.0.0/8"], args].concat())
}

/// The verification in Python that docs/queue.md recommends to receivers.
fn verified_by_the_documentation(call: &Call, key: &str) -> bool {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/queue.md")).unwrap();
    let program = text.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let call = json!({"key": key, "headers": call.headers, "body": String::from_utf8(call.body.clone()).unwrap()});
    let program = format!(
        "{program}\nimport json, sys\nit = json.loads(sys.argv[1])\nprint(verify(it['key'], it['headers'], it['body'].encode()))"
    );
    let out = std::process::Command::new("python3")
        .args(["-c", &program, &call.to_string()])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout == b"True\n"
}

async fn callback(server: &Server, id: &str, status: &str) -> Value {
    eventually(status, async || {
        server.get(&format!("/v2/jobs/{id}")).await.1["callback"]["status"] == status
    })
    .await;
    server.get(&format!("/v2/jobs/{id}")).await.1
}

async fn the_result_is_told_and_signed(kind: Kind) {
    let (broker, receiver) = (Broker::start(kind), Receiver::start(|_| code(204)).await);
    let server = server(&broker, "affine", &["--callback-allow", "127.0.0.1"]);
    let worker = calling(&broker, &[]);
    let id = post(&server, &job(&receiver.url())).await;
    let seen = callback(&server, &id, "delivered").await;
    let calls = receiver.calls();
    let call = &calls[0];
    assert!(
        calls.len() == 1
            && call.path == "/hook"
            && call.verify(KEY)
            && !call.verify("another-key-of-16-bytes"),
        "{calls:?}"
    );
    assert_eq!(
        (
            &call.headers["idempotency-key"],
            &call.headers["webhook-id"],
            call.headers["x-slipway-attempt"].as_str()
        ),
        (&id, &id, "1")
    );
    let mut told = seen.clone();
    told.as_object_mut().unwrap().remove("callback");
    assert_eq!(call.json(), told, "what can be read is what is told");
    assert!(told["status"] == "succeeded" && told["result"]["outputs"].is_array());
    assert!(
        verified_by_the_documentation(call, KEY)
            && !verified_by_the_documentation(call, "another-key-of-16-bytes")
    );
    assert_eq!(broker.total("callbacks_delivered"), 1);
    let delivered = "slipway_runtime_callbacks_total{modeldeployment=\"test\",revision=\"rev1\",outcome=\"delivered\"}";
    assert_eq!(worker.metric(delivered).await, 1.0);
}

async fn a_failing_receiver_is_called_again_also_by_another_worker(kind: Kind) {
    let (broker, receiver) =
        (Broker::start(kind), Receiver::start(|n| if n < 5 { code(503) } else { code(200) }).await);
    let server = server(&broker, "affine", &["--callback-allow", "127.0.0.1"]);
    let first = calling(&broker, &["--callback-attempts", "20"]);
    let id = post(&server, &job(&receiver.url())).await;
    eventually("some attempts", async || receiver.calls().len() >= 2).await;
    first.signal("KILL");
    let _second = calling(&broker, &["--callback-attempts", "20"]);
    let seen = callback(&server, &id, "delivered").await;
    let calls = receiver.calls();
    assert!(
        calls.len() >= 5
            && calls.iter().all(|c| c.verify(KEY) && c.headers["idempotency-key"] == id),
        "{calls:?}"
    );
    assert!(calls.iter().all(|c| c.body == calls[0].body), "the same body every time");
    let attempts: Vec<u64> =
        calls.iter().map(|c| c.headers["x-slipway-attempt"].parse().unwrap()).collect();
    assert!(attempts.windows(2).all(|w| w[0] < w[1]), "{attempts:?}");
    assert_eq!(
        (seen["attempts"].as_u64(), &seen["callback"]["error"]),
        (Some(1), &json!(null)),
        "the job ran once"
    );
}

async fn what_is_hopeless_is_a_dead_letter(kind: Kind) {
    let broker = Broker::start(kind);
    let gone = Receiver::start(|_| code(404)).await;
    let down = Receiver::start(|_| code(500)).await;
    let target = Receiver::start(|_| code(200)).await;
    let elsewhere = target.url();
    let redirecting = Receiver::start(move |_| {
        Response::builder()
            .status(307)
            .header("location", &elsewhere)
            .body(Full::default())
            .unwrap()
    })
    .await;
    let server = server(&broker, "affine", &["--callback-allow", "127.0.0.1"]);
    let _worker = calling(&broker, &["--callback-attempts", "3"]);
    for (receiver, calls, part) in
        [(&gone, 1, "404"), (&down, 3, "500"), (&redirecting, 1, "redirects are not followed")]
    {
        let id = post(&server, &job(&receiver.url())).await;
        let seen = callback(&server, &id, "dead").await;
        assert!(seen["callback"]["error"].as_str().unwrap().contains(part), "{seen}");
        assert_eq!((receiver.calls().len(), &seen["status"]), (calls, &json!("succeeded")));
    }
    assert!(target.calls().is_empty(), "nobody followed");
    eventually("settled", async || broker.callbacks() == (3, 0)).await;
    assert_eq!(broker.total("callbacks_dead"), 3);
}

async fn only_permitted_addresses_are_called(kind: Kind) {
    let (broker, receiver) = (Broker::start(kind), Receiver::start(|_| code(200)).await);
    let port = receiver.address.rsplit(':').next().unwrap();
    // The name is allowed, but only at public addresses; it resolves to this host.
    let server = server(&broker, "affine", &["--callback-allow", "localhost"]);
    let common = ["--callback-signing-key", KEY, "--callback-allow", "localhost"];
    let _worker = worker(&broker, "affine", &common);
    let id = post(&server, &job(&format!("http://localhost:{port}/"))).await;
    let seen = callback(&server, &id, "dead").await;
    assert!(seen["callback"]["error"].as_str().unwrap().contains("may be called"), "{seen}");
    assert_eq!(seen["callback"]["attempts"], 1, "there is no point in another attempt");

    // Without the API: an external producer with an address.
    let mut own = job(&receiver.url());
    own["model"] = json!("m");
    own["id"] = json!("own");
    broker.write("high", &own.to_string());
    let failed = until(&server, "own", "failed").await;
    assert!(
        failed["error"].as_str().unwrap().contains("not allowed") && failed["callback"].is_null(),
        "{failed}"
    );
    settled(&broker).await;
    assert!(receiver.calls().is_empty());
}

#[test]
fn callbacks_without_a_key_are_no_start() {
    let mut worker = Server::worker(
        "affine",
        &["--queue-url", "redis://127.0.0.1:1/", "--callback-allow", "*"],
        &[],
    );
    let failure = worker.failure();
    assert!(
        failure["permanent"] == true
            && failure["message"].as_str().unwrap().contains("SLIPWAY_CALLBACK_SIGNING_KEY"),
        "{failure}"
    );
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A job with the trace of a client; returns the trace of its callback. The worker keeps running,
/// to export its spans.
async fn traced(broker: &Broker, env: &[(&str, &str)]) -> (Server, String) {
    let receiver = Receiver::start(|_| code(204)).await;
    let api = server(broker, "affine", &["--callback-allow", "127.0.0.0/8"]);
    let args = [
        "--queue-url",
        &broker.url(),
        "--callback-allow",
        "127.0.0.0/8",
        "--callback-signing-key",
        KEY,
    ];
    let worker = Server::worker("affine", &args, env);
    worker.line("ready");
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let request = api
        .post("/v2/models/m/jobs")
        .header("traceparent", parent)
        .body(job(&receiver.url()).to_string());
    assert_eq!(request.send().await.unwrap().status(), 202);
    eventually("called back", async || receiver.calls().len() == 1).await;
    let parent = receiver.calls()[0].headers["traceparent"].clone();
    (worker, parent)
}

async fn a_client_s_trace_reaches_the_callback(kind: Kind) {
    let broker = Broker::start(kind);
    let (_worker, parent) = traced(&broker, &[]).await;
    assert_eq!(
        parent,
        format!("00-{TRACE}-b7ad6b7169203331-01"),
        "without traces of ours, as it came"
    );
}

async fn a_client_s_trace_goes_on_in_the_worker(kind: Kind) {
    let broker = Broker::start(kind);
    let (endpoint, received) = super::super::samples::collector();
    let env =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let (_worker, parent) = traced(&broker, &env).await;
    assert!(
        parent.starts_with(&format!("00-{TRACE}-")) && !parent.contains("b7ad6b7169203331"),
        "a span of ours: {parent}"
    );
    let trace = hex::decode(TRACE).unwrap();
    let keeper = if kind == Kind::Redis { "redis" } else { "nats" };
    let mut missing = vec!["job", "inference", "callback", keeper];
    while !missing.is_empty() {
        let (_, body) =
            received.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no spans {missing:?} came"));
        let holds = |part: &[u8]| body.windows(part.len()).any(|w| w == part);
        missing.retain(|name| !(holds(&trace) && holds(name.as_bytes())));
    }
}

on_each_broker! {
    the_result_is_told_and_signed,
    a_failing_receiver_is_called_again_also_by_another_worker,
    what_is_hopeless_is_a_dead_letter,
    only_permitted_addresses_are_called,
    a_client_s_trace_reaches_the_callback,
    a_client_s_trace_goes_on_in_the_worker,
}
