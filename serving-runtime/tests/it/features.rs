//! Feature rows: written, read back through Redis, and fetched from a source.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use serde_json::{Value, json};
use slipway_oip::inference as pb;
use slipway_oip::inference::infer_parameter::ParameterChoice;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use super::grpc;
use super::redis::RedisServer;
use super::support::{Server, answer};

const ON: &str = "--feature-cache";
const SLOWLY: [&str; 2] = ["--redis-budget-ms", "5000"];

async fn put(server: &Server, entity: &str, row: &Value) -> (u16, Value) {
    let url = format!("{}/v2/models/m/features/{entity}", server.api);
    answer(server.http.put(url).body(row.to_string()).send().await.unwrap()).await
}

fn of(entity: Value) -> Value {
    json!({"parameters": {"entity": entity}, "outputs": [{"name": "y"}]})
}

async fn outcome(server: &Server, outcome: &str) -> f64 {
    let labels = format!(
        "{{modeldeployment=\"test\",revision=\"rev1\",cache=\"feature\",outcome=\"{outcome}\"}}"
    );
    server.metric(&format!("slipway_runtime_cache_requests_total{labels}")).await
}

/// A feature source: `/rows/<n>` has a row, `/rows/none` has none, `/rows/away` redirects to
/// another host, `/rows/huge` never ends, `/rows/hang` does not answer.
struct Source {
    address: String,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Source {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let n = stream.read(&mut head).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&head[..n]).into_owned();
                    let Some(path) = head.split(' ').nth(1) else { return };
                    counter.fetch_add(1, Ordering::SeqCst);
                    let full = |status: &str, body: &str| {
                        format!(
                            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                            body.len()
                        )
                    };
                    let answer = match path.strip_prefix("/rows/").unwrap_or_default() {
                        "none" => full("404 Not Found", ""),
                        "away" => full("302 Found\r\nlocation: http://127.0.0.1:1/secret", ""),
                        "broken" => full("200 OK", "[1, 2]"),
                        "huge" => full("200 OK", &"x".repeat(1 << 20)),
                        "hang" => std::future::pending().await,
                        n => full(
                            "200 OK",
                            &json!({"x": [n.parse::<f32>().unwrap_or(-1.0), 1.0]}).to_string(),
                        ),
                    };
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { address, asked, task }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn requests_are_filled_from_rows() {
    let server = Server::start("affine", &[ON, "--result-cache"]);
    assert_eq!(
        put(&server, "user-1", &json!({"x": [1.0, 2.0]})).await,
        (200, json!({"stored": 1}))
    );
    let bulk = json!({"features": {"user-2": {"x": [3.0, 4.0]}, "a/ü": {"x": [5.0, 6.0]}}});
    let response =
        server.post("/v2/models/m/features").body(bulk.to_string()).send().await.unwrap();
    assert_eq!(answer(response).await, (200, json!({"stored": 2})));

    let (status, one) = server.infer(&of(json!("user-1"))).await;
    assert_eq!((status, &one["outputs"][0]["data"]), (200, &json!([3.0, 5.0])), "{one}");
    let (_, many) = server.infer(&of(json!(["user-2", "user-1", "a/ü", "user-2"]))).await;
    assert_eq!(many["outputs"][0]["shape"], json!([4, 2]));
    assert_eq!(many["outputs"][0]["data"], json!([7.0, 9.0, 3.0, 5.0, 11.0, 13.0, 7.0, 9.0]));
    // Inputs in the request itself are not looked up in the row; a name in the path may be
    // percent-encoded.
    let mut own = of(json!("user-1"));
    own["inputs"] =
        json!([{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [10.0, 20.0]}]);
    assert_eq!(server.infer(&own).await.1["outputs"][0]["data"], json!([21.0, 41.0]));
    assert_eq!(put(&server, "a%2F%C3%BC", &json!({"x": [0.0, 0.0]})).await.0, 200);
    assert_eq!(server.infer(&of(json!("a/ü"))).await.1["outputs"][0]["data"], json!([1.0, 1.0]));
    // A changed row is a different input, so the result cache returns no old answer.
    assert_eq!(put(&server, "user-1", &json!({"x": [2.0, 2.0]})).await.0, 200);
    assert_eq!(server.infer(&of(json!("user-1"))).await.1["outputs"][0]["data"], json!([5.0, 5.0]));
    // With the binary extension, and with a binary answer.
    let header =
        json!({"parameters": {"entity": "user-1", "binary_data_output": true}, "outputs": [{"name": "y"}]}).to_string();
    let request = server
        .post("/v2/models/m/infer")
        .header("inference-header-content-length", header.len())
        .body(header);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        response
            .bytes()
            .await
            .unwrap()
            .ends_with(&[5.0_f32.to_le_bytes(), 5.0_f32.to_le_bytes()].concat())
    );
}

fn message(entity: ParameterChoice, inputs: &[f32]) -> pb::ModelInferRequest {
    let mut message =
        if inputs.is_empty() { pb::ModelInferRequest::default() } else { grpc::affine(1, inputs) };
    message.model_name = "m".into();
    message
        .parameters
        .insert("entity".into(), pb::InferParameter { parameter_choice: Some(entity) });
    message
}

#[tokio::test]
async fn messages_of_grpc_are_filled_from_rows() {
    let server = Server::start("affine", &[ON]);
    for (entity, row) in [
        ("user-1", json!({"x": [1.0, 2.0]})),
        ("[2]", json!({"x": [3.0, 4.0]})),
        ("[", json!({"x": [5.0, 6.0]})),
    ] {
        let bulk = json!({"features": {entity: row}});
        assert_eq!(
            server
                .post("/v2/models/m/features")
                .body(bulk.to_string())
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
    let mut client = grpc::client(&server).await;
    let text = |text: &str| ParameterChoice::StringParam(text.into());
    for (entity, inputs, shape, want) in [
        ("user-1", &[][..], [1, 2], &[3.0, 5.0][..]),
        (r#"["[2]", "user-1", "user-1"]"#, &[], [3, 2], &[7.0, 9.0, 3.0, 5.0, 3.0, 5.0]),
        // A name that only begins like a list.
        ("[", &[], [1, 2], &[11.0, 13.0]),
        // Inputs in the message itself are not looked up in the row.
        ("user-1", &[10.0, 20.0], [1, 2], &[21.0, 41.0]),
    ] {
        let answer = client.model_infer(message(text(entity), inputs)).await.unwrap().into_inner();
        let at = answer.outputs.iter().position(|output| output.name == "y").unwrap();
        assert_eq!(answer.outputs[at].shape, shape, "{entity}");
        assert_eq!(answer.raw_output_contents[at], grpc::raw(want), "{entity}");
    }
    for (entity, code, part) in [
        (text("nobody"), Code::NotFound, "entity \"nobody\""),
        (text(""), Code::InvalidArgument, "parameters.entity"),
        (text("[2]"), Code::InvalidArgument, "parameters.entity"),
        (ParameterChoice::Int64Param(7), Code::InvalidArgument, "parameters.entity"),
    ] {
        let status = client.model_infer(message(entity, &[])).await.unwrap_err();
        assert!(
            status.code() == code && status.message().contains(part),
            "{status}, not {code:?} with {part}"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = Server::start("affine", &[ON]);
    let says = |(status, body): (u16, Value), want: u16, part: &str| {
        let text = body["error"].as_str().unwrap_or_default();
        assert!(status == want && text.contains(part), "{status} {body}, not {want} with {part}");
    };
    says(server.infer(&of(json!("nobody"))).await, 404, "entity \"nobody\"");
    says(server.infer(&of(json!(7))).await, 400, "parameters.entity");
    says(server.infer(&of(json!([]))).await, 400, "parameters.entity");
    says(put(&server, "u", &json!({"z": [1, 2]})).await, 400, "no input \"z\"; it has \"x\"");
    says(put(&server, "u", &json!({"x": [1, 2, 3]})).await, 400, "entity \"u\"");
    says(put(&server, "u", &json!({"x": ["a", "b"]})).await, 400, "\"x\"");
    says(put(&server, "u", &json!([1])).await, 400, "want {");
    says(put(&server, &"u".repeat(300), &json!({"x": [1, 2]})).await, 400, "1 to 256 bytes");
    assert_eq!(put(&server, "empty", &json!({})).await.0, 200);
    says(server.infer(&of(json!("empty"))).await, 400, "has no input \"x\"");
    says(server.get("/v2/models/m/features/u").await, 405, "PUT");
    let off = Server::start("affine", &[]);
    says(put(&off, "u", &json!({"x": [1, 2]})).await, 404, "spec.server.cache.features");
    says(off.infer(&of(json!("u"))).await, 400, "missing \"x\"");
}

#[tokio::test]
async fn pods_read_each_others_rows_through_redis() {
    let mut redis = RedisServer::start();
    let url = redis.url();
    let args = [&[ON, "--redis-url", &url][..], &SLOWLY].concat();
    let (one, two) = (Server::start("affine", &args), Server::start("affine", &args));
    assert_eq!(put(&one, "user-1", &json!({"x": [1.0, 2.0]})).await.0, 200);
    assert_eq!(two.infer(&of(json!("user-1"))).await.1["outputs"][0]["data"], json!([3.0, 5.0]));
    assert_eq!((outcome(&two, "hit_redis").await, outcome(&two, "hit_local").await), (1.0, 0.0));
    redis.kill();
    // A row that cannot be stored is not reported as stored, and one that cannot be read is not
    // reported as missing.
    assert_eq!(put(&one, "user-2", &json!({"x": [1.0, 2.0]})).await.0, 503);
    assert_eq!(two.infer(&of(json!("user-3"))).await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_asked_once_for_what_nobody_wrote() {
    let source = Source::start().await;
    let url = format!("http://{}/rows/{{entity}}", source.address);
    let server = Server::start(
        "affine",
        &[ON, "--feature-source-url", &url, "--feature-source-timeout-ms", "3000"],
    );
    let request = of(json!("7"));
    let all = join_all((0..20).map(|_| server.infer(&request))).await;
    assert!(
        all.iter().all(
            |(status, body)| *status == 200 && body["outputs"][0]["data"] == json!([15.0, 3.0])
        ),
        "{all:?}"
    );
    assert_eq!(source.asked.load(Ordering::SeqCst), 1);
    assert_eq!(outcome(&server, "miss").await, 1.0);
    let status = async |entity: &str| server.infer(&of(json!(entity))).await.0;
    assert_eq!(status("none").await, 404);
    assert_eq!(status("..").await, 404);
    assert_eq!(source.asked.load(Ordering::SeqCst), 2, "dots name no row");
    for entity in ["away", "broken", "huge"] {
        assert_eq!(status(entity).await, 503, "{entity}");
    }
    // The request's own deadline limits the wait for the source.
    let hanging = server
        .post("/v2/models/m/infer")
        .header("x-request-timeout-ms", "200")
        .body(of(json!("hang")).to_string());
    assert_eq!(hanging.send().await.unwrap().status(), 504);
}

/// Any pod of the namespace can reach this port, so it must require the token, or the gateway's
/// proof of it, as well.
#[tokio::test]
async fn past_the_gateway_rows_and_hot_inputs_are_for_those_who_show_the_token() {
    let keys = tempfile::tempdir().unwrap();
    let token = "0123456789abcdef0123456789abcdef0123456789a";
    std::fs::write(keys.path().join("master"), [7; 32]).unwrap();
    std::fs::write(keys.path().join("token"), token).unwrap();
    let folder = keys.path().display().to_string();
    let args = [
        ON,
        "--result-cache",
        "--cache-hot-keys",
        "2",
        "--uid",
        "uid",
        "--keys-directory",
        &folder,
    ];
    let server = Server::start("affine", &args);
    let proof = hex::encode(slipway_prediction_id::derive_key(
        &[7; 32],
        slipway_prediction_id::ACCESS_PURPOSE,
        "uid",
    ));
    let row = json!({"x": [1.0, 2.0]}).to_string();
    let url = format!("{}/v2/models/m/features/user-1", server.api);
    let load = format!("{}/v2/repository/models/m/unload", server.api);
    let hot = format!("{}/v1/cache/hot", server.admin);
    let bearer = format!("Bearer {token}");
    for (header, value, status) in [
        ("x-other", "", 403),
        ("authorization", "Bearer 0123456789abcdef0123456789abcdef0123456789b", 403),
        ("x-slipway-access", "00", 403),
        ("authorization", bearer.as_str(), 200),
        ("x-slipway-access", proof.as_str(), 200),
    ] {
        let put =
            server.http.put(&url).header(header, value).body(row.clone()).send().await.unwrap();
        let told = server.http.get(&hot).header(header, value).send().await.unwrap();
        assert_eq!(
            (put.status().as_u16(), told.status().as_u16()),
            (status, status),
            "{header}: {value}"
        );
        if status == 403 {
            let refused = server.http.post(&load).header(header, value).send().await.unwrap();
            assert_eq!(refused.status(), 403, "{header}: {value}");
        }
    }
    // Predictions need no token.
    assert_eq!(server.infer(&of(json!("user-1"))).await.0, 200);
}
