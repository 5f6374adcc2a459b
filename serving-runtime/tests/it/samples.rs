//! Samples of requests in a directory; and traces, which are exported in a similar way.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{DEADLINE, Server, affine, eventually, model};

fn lines(dir: &Path) -> Vec<Value> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let text = files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect::<String>();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test]
async fn every_sampled_request_is_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let sink = format!("file://{}", dir.path().display());
    let server = Server::start("affine", &["--sample-payloads", "1", "--sample-sink", &sink]);
    let response =
        server.post("/v2/models/m/infer").body(affine(&[[1.0, 2.0], [3.0, 4.0]]).to_string());
    let told = response.send().await.unwrap().headers()["x-slipway-prediction"]
        .to_str()
        .unwrap()
        .to_owned();
    // The same as in the prediction id, after its version.
    let id = told.split('.').next().unwrap();
    eventually("a sample", || async {
        server.metric("slipway_runtime_samples_written_total").await == 1.0
    })
    .await;
    let line = &lines(dir.path())[0];
    assert_eq!(
        (&line["prediction_id"], &line["revision"], &line["model"]),
        (&id.into(), &"rev1".into(), &"m".into())
    );
    let inputs =
        json!([{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]}]);
    assert_eq!(line["inputs"], inputs);
    assert_eq!(line["outputs"][0]["data"], json!([3.0, 5.0, 7.0, 9.0]));
}

#[tokio::test]
async fn samples_are_redacted_bounded_and_off_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let sink = format!("file://{}", dir.path().display());
    let server = Server::start("affine", &["--sample-sink", &sink]);
    assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
    assert_eq!(server.metric("slipway_runtime_samples_written_total").await, 0.0);
    let args = ["--sample-payloads", "1", "--sample-sink", &sink, "--sample-redact", "x"];
    let small = ["--sample-buffer-bytes", "100", "--sample-file-bytes", "1", "--sample-files", "2"];
    let mut server = Server::start("affine", &[&args[..], &small].concat());
    for n in 1..=5 {
        assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
        let written = "slipway_runtime_samples_written_total";
        eventually("a sample", || async { server.metric(written).await == f64::from(n) }).await;
    }
    // Too large for the waiting samples: the request is answered all the same, and the sample is
    // counted as dropped.
    assert_eq!(server.infer(&affine(&[[1.0, 2.0]; 50])).await.0, 200);
    assert_eq!(server.metric("slipway_runtime_samples_dropped_total").await, 1.0);
    server.signal("TERM");
    assert!(server.wait().success());
    let lines = lines(dir.path());
    assert_eq!(lines.len(), 2, "two files of one line are kept");
    let redacted = json!([{"name": "x", "datatype": "FP32", "shape": [1, 2], "redacted": true}]);
    assert_eq!(lines[0]["inputs"], redacted);

    let uri = model("affine").display().to_string();
    let mut server =
        Server::spawn(&uri, &["--sample-payloads", "0.5", "--sample-sink", "ftp://host/x"], &[]);
    let failure = server.failure();
    assert!(failure["message"].as_str().unwrap().contains("--sample-sink"), "{failure}");
}

/// A collector: the head of each received request and its body.
pub(crate) fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            let head = loop {
                match stream.read(&mut piece) {
                    Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
                    _ => break None,
                }
                let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = head
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok())
                    .unwrap();
                if bytes.len() >= end + 4 + length {
                    break Some((head, bytes.split_off(end + 4)));
                }
            };
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
            if let Some(request) = head
                && sender.send(request).is_err()
            {
                return;
            }
        }
    });
    (address, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_become_objects_of_a_store() {
    let (endpoint, received) = collector();
    let env = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "local"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("SLIPWAY_SAMPLE_PAYLOADS", "1"),
        ("SLIPWAY_SAMPLE_SINK", "s3://bucket/samples"),
        ("POD_NAME", "pod-7"),
    ];
    let mut server = Server::spawn(&model("affine").display().to_string(), &[], &env);
    server.line("ready");
    for _ in 0..3 {
        assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
    }
    // Waiting samples are written before the end.
    server.signal("TERM");
    assert!(server.wait().success());
    let (head, body) = received.recv_timeout(DEADLINE).expect("no object came");
    assert!(
        head.starts_with("put /bucket/samples/rev1-pod-7-") && head.contains(".jsonl"),
        "{head}"
    );
    assert_eq!(String::from_utf8(body).unwrap().lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_trace_goes_on_in_the_server() {
    let (endpoint, received) = collector();
    let env =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let server = Server::spawn(&model("affine").display().to_string(), &[], &env);
    server.line("ready");
    let trace = [
        0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31,
        0x9c,
    ];
    let parent = format!("00-{}-b7ad6b7169203331-01", hex::encode(trace));
    let request = server.post("/v2/models/m/infer").header("traceparent", parent);
    assert_eq!(request.body(affine(&[[1.0, 2.0]]).to_string()).send().await.unwrap().status(), 200);
    let holds = |body: &[u8], part: &[u8]| body.windows(part.len()).any(|w| w == part);
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let (head, body) = received.recv_timeout(left).expect("no spans came");
        assert!(
            head.starts_with("post /v1/traces") && head.contains("application/x-protobuf"),
            "{head}"
        );
        let all: [&[u8]; 4] =
            [&trace, b"POST /v2/models/m/infer", b"inference", b"slipway-runtime"];
        if all.iter().all(|part| holds(&body, part)) {
            break;
        }
    }
}
