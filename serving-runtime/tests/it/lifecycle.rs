//! The life of the process, from loading to the end of the drain.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::support::{Server, affine, answer, client, digest, eventually, model, slow};

#[tokio::test(flavor = "multi_thread")]
async fn not_ready_before_the_model_is() {
    // A web server that answers when the test signals it.
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/m", web.local_addr().unwrap());
    let server = Server::spawn(&uri, &["--model-digest", &digest(&model("affine"))], &[]);
    let (mut stream, _) = web.accept().await.unwrap();
    assert_eq!((server.probe("/livez").await, server.probe("/readyz").await), (200, 503));
    assert_eq!(server.get("/v2/health/live").await.0, 200);
    for path in ["/v2/health/ready", "/v2/models/m/ready", "/v2/models/m"] {
        let (status, body) = server.get(path).await;
        assert!(
            status == 503 && body["error"].as_str().unwrap().contains("loading"),
            "{path}: {status} {body}"
        );
    }
    let response = server
        .post("/v2/models/m/infer")
        .body(affine(&[[1.0, 2.0]]).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()),
        (503, "1")
    );

    let bytes = std::fs::read(model("affine")).unwrap();
    let _ = stream.read(&mut [0; 4096]).await.unwrap();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
    stream.write_all(&[head.as_bytes(), &bytes].concat()).await.unwrap();
    server.line("ready");
    assert_eq!(server.probe("/readyz").await, 200);
    assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
    let labels = "modeldeployment=\"test\",revision=\"rev1\",model=\"m\",version=\"1\"";
    let info =
        format!("slipway_runtime_model_info{{{labels},digest=\"{}\"}}", digest(&model("affine")));
    assert_eq!(server.metric(&info).await, 1.0);
    assert!(server.metric("slipway_runtime_model_load_seconds{").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_end_while_loading() {
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut server = Server::spawn(&format!("http://{}/m", web.local_addr().unwrap()), &[], &[]);
    let _held = web.accept().await.unwrap();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

/// Rounds of the slow model that take about `want` on this machine at this moment.
async fn rounds_for(server: &Server, want: Duration) -> u64 {
    let mut rounds = 2000_u64;
    loop {
        let begun = Instant::now();
        assert_eq!(server.infer(&slow(rounds)).await.0, 200);
        let took = begun.elapsed();
        if took > Duration::from_millis(50) {
            return (rounds as f64 * want.as_secs_f64() / took.as_secs_f64()) as u64;
        }
        rounds *= 2;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_loses_no_request() {
    let delay = Duration::from_secs(1);
    let mut server = Server::start("affine", &["--drain-delay-seconds", "1"]);
    let (stop, done, late) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let clients = (0..8).map(|_| async {
        let http = client();
        while !stop.load(Ordering::SeqCst) {
            let request = http
                .post(format!("{}/v2/models/m/infer", server.api))
                .body(affine(&[[1.0, 2.0]]).to_string());
            let response = request.send().await.expect("a request was lost");
            assert_eq!(response.status(), 200);
            // The server asks to close a kept connection, so that the client looks for another pod.
            let told = response.headers().get("connection").is_some_and(|v| v == "close");
            let counter = if told { &late } else { &done };
            counter.fetch_add(1, Ordering::SeqCst);
            response.bytes().await.unwrap();
        }
    });
    let conductor = async {
        eventually("requests before", async || done.load(Ordering::SeqCst) > 200).await;
        server.signal("TERM");
        eventually("requests while draining", async || late.load(Ordering::SeqCst) > 200).await;
        // It may be the only pod, so it continues to serve while requests arrive, and is ready,
        // because the EndpointSlice lists it as serving for that reason.
        let begun = Instant::now();
        let (long, before) = (4 * delay, late.load(Ordering::SeqCst));
        eventually("longer than the delay", async || begun.elapsed() > long).await;
        assert_eq!((server.probe("/livez").await, server.probe("/readyz").await), (200, 200));
        eventually("requests still", async || late.load(Ordering::SeqCst) > before + 200).await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(futures::future::join_all(clients), conductor);
    let all = server.metric("slipway_runtime_requests_total").await;
    assert_eq!(
        all as usize,
        done.into_inner() + late.into_inner(),
        "every request is counted, and counted once"
    );
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_on_has_an_end() {
    let mut server =
        Server::start("affine", &["--drain-delay-seconds", "1", "--drain-serve-seconds", "2"]);
    let asked = AtomicUsize::new(0);
    let asking = async {
        let request = || client().get(format!("{}/v2/models/m/ready", server.api)).send();
        while request().await.is_ok_and(|answer| answer.status() == 200) {
            asked.fetch_add(1, Ordering::SeqCst);
        }
    };
    let ending = async {
        eventually("asked", async || asked.load(Ordering::SeqCst) > 0).await;
        server.signal("TERM");
    };
    tokio::join!(asking, ending);
    assert_eq!(server.wait().code(), Some(0));
    server.line("requests still come: no other pod took over in time");
}

/// A request has the time limit that its client or the gateway sends, not the server's default,
/// within the server's limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_the_time_that_it_names() {
    let server = Server::start(
        "slow",
        &["--request-timeout-seconds", "1", "--max-request-timeout-seconds", "60"],
    );
    let body = slow(rounds_for(&server, Duration::from_secs(3)).await).to_string();
    let ask = |named: Option<&'static str>| {
        let request = server.post("/v2/models/m/infer").body(body.clone());
        match named {
            Some(named) => request.header("x-request-timeout-ms", named).send(),
            None => request.send(),
        }
    };
    assert_eq!(ask(None).await.unwrap().status(), 504);
    assert_eq!(ask(Some("50000")).await.unwrap().status(), 200);
    let bounded = Server::start(
        "slow",
        &["--request-timeout-seconds", "1", "--max-request-timeout-seconds", "1"],
    );
    let request = bounded
        .post("/v2/models/m/infer")
        .header("x-request-timeout-ms", "50000")
        .body(body.clone());
    assert_eq!(request.send().await.unwrap().status(), 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_ends_after_the_port_closed() {
    let mut server = Server::start("slow", &[]);
    let rounds = rounds_for(&server, Duration::from_secs(2)).await;
    let request =
        tokio::spawn(server.post("/v2/models/m/infer").body(slow(rounds).to_string()).send());
    eventually("in flight", async || {
        server.metric("slipway_runtime_requests_in_flight").await == 1.0
    })
    .await;
    let address = server.api.trim_start_matches("http://").to_owned();
    server.signal("TERM");
    eventually("no new connections", async || {
        tokio::net::TcpStream::connect(&address).await.is_err()
    })
    .await;
    let (status, body) = answer(request.await.unwrap().unwrap()).await;
    assert_eq!(status, 200, "{body}");
    // The slow model answers with its number of rounds.
    assert_eq!(body["outputs"][0]["data"][0].as_f64(), Some(f64::from(rounds as f32)));
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_has_an_end() {
    let mut server = Server::start(
        "slow",
        &["--drain-timeout-seconds", "1", "--request-timeout-seconds", "3600"],
    );
    let rounds = rounds_for(&server, Duration::from_secs(600)).await;
    let request =
        tokio::spawn(server.post("/v2/models/m/infer").body(slow(rounds).to_string()).send());
    eventually("in flight", async || {
        server.metric("slipway_runtime_requests_in_flight").await == 1.0
    })
    .await;
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    server.line("some requests did not end in time");
    assert!(request.await.unwrap().is_err());
}
