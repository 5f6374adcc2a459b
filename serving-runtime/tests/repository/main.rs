//! Several models in one pod: loaded, unloaded, sent away and brought back; and models that must
//! not get in. A program of its own, because the server is built with the feature
//! `model-repository` for it; `make clients` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

#[allow(dead_code, reason = "it serves all tests of the server")]
#[path = "../it/support.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use slipway_conformance::{CheckOutcome, ConformanceOptions, run_checks};
use slipway_oip::inference as pb;
use slipway_oip::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use support::{DEADLINE, Server, affine, answer, eventually, model, run_program, slow};
use tonic::transport::Channel;

fn declare(repository: &Path, name: &str, version: &str, from: &str) {
    let place = repository.join(name).join(version);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(model(from), place.join("model.onnx")).unwrap();
}

fn start(own: &str, repository: &Path, args: &[&str]) -> Server {
    let directory = repository.display().to_string();
    Server::start(own, &[&["--model-repository", &directory], args].concat())
}

async fn ask(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    answer(server.post(path).body(body.to_string()).send().await.unwrap()).await
}

async fn load(server: &Server, name: &str) -> (u16, Value) {
    ask(server, &format!("/v2/repository/models/{name}/load"), &json!({})).await
}

async fn state(server: &Server, name: &str, version: &str) -> (String, String) {
    let (status, index) = ask(server, "/v2/repository/index", &json!({})).await;
    assert_eq!(status, 200);
    let entry =
        index.as_array().unwrap().iter().find(|e| e["name"] == name && e["version"] == version);
    let text = |key: &str| entry.map_or("", |e| e[key].as_str().unwrap()).to_owned();
    (text("state"), text("reason"))
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_loaded_by_name_and_unloaded() {
    let repository = tempfile::tempdir().unwrap();
    declare(repository.path(), "second", "1", "affine");
    declare(repository.path(), "second", "2", "affine");
    let server = start("classifier", repository.path(), &[]);
    let infer = "/v2/models/second/infer";
    assert_eq!(ask(&server, infer, &affine(&[[1.0, 2.0]])).await.0, 404);
    assert_eq!(state(&server, "second", "2").await, ("UNAVAILABLE".into(), "not loaded".into()));
    assert_eq!(state(&server, "m", "1").await.0, "READY");

    let (status, body) = load(&server, "second").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(state(&server, "second", "2").await, ("READY".into(), String::new()));
    assert_eq!(state(&server, "second", "1").await.0, "UNAVAILABLE");
    let (status, body) = ask(&server, infer, &affine(&[[1.0, 2.0]])).await;
    assert_eq!(
        (status, &body["model_version"], &body["outputs"][0]["data"]),
        (200, &json!("2"), &json!([3.0, 5.0]))
    );
    // Another version beside it.
    let path = "/v2/repository/models/second/load";
    assert_eq!(ask(&server, path, &json!({"parameters": {"version": "1"}})).await.0, 200);
    let (_, metadata) = server.get("/v2/models/second").await;
    assert_eq!(metadata["versions"], json!(["2", "1"]));
    let (_, only) = ask(&server, "/v2/repository/index", &json!({"ready": true})).await;
    assert_eq!(only.as_array().unwrap().len(), 3);
    // By gRPC it is the same repository.
    let channel = Channel::from_shared(server.api.clone()).unwrap().connect().await.unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel);
    let index =
        client.repository_index(pb::RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert_eq!(index.models.iter().filter(|m| m.state == "READY").count(), 3);
    let of = pb::RepositoryModelUnloadRequest { model_name: "second".into(), ..Default::default() };
    client.repository_model_unload(of.clone()).await.unwrap();
    assert_eq!(client.repository_model_unload(of).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(state(&server, "second", "2").await, ("UNAVAILABLE".into(), "unloaded".into()));
    assert_eq!(ask(&server, infer, &affine(&[[1.0, 2.0]])).await.0, 404);
    let of = pb::RepositoryModelLoadRequest { model_name: "second".into(), ..Default::default() };
    client.repository_model_load(of).await.unwrap();
    assert_eq!(ask(&server, infer, &affine(&[[1.0, 2.0]])).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_declared_is_refused() {
    let repository = tempfile::tempdir().unwrap();
    declare(repository.path(), "second", "1", "affine");
    let server = start("affine", repository.path(), &[]);
    for (path, body, status, part) in [
        ("/v2/repository/models/nothing/load", json!({}), 404, "no nothing/<version>/model.onnx"),
        (
            "/v2/repository/models/second/load",
            json!({"parameters": {"version": "9"}}),
            404,
            "no second/9/model.onnx",
        ),
        (
            "/v2/repository/models/second/load",
            json!({"parameters": {"version": ".."}}),
            400,
            "letters, digits",
        ),
        ("/v2/repository/models/..%2f..%2fetc/load", json!({}), 400, "letters, digits"),
        (
            "/v2/repository/models/second/load",
            json!({"parameters": {"config": "{}"}}),
            400,
            "\"config\" of a load is not supported",
        ),
        ("/v2/repository/models/second/load", json!([]), 400, "JSON object"),
        ("/v2/repository/models/second/unload", json!({}), 404, "not loaded"),
        ("/v2/repository/models/m/unload", json!({}), 422, "own model"),
    ] {
        let (got, body) = ask(&server, path, &body).await;
        assert!(
            got == status && body["error"].as_str().unwrap().contains(part),
            "{path}: {got} {body}"
        );
    }
    // The pod's own model is loaded already.
    assert_eq!(load(&server, "m").await.0, 200);
    let (_, metadata) = server.get("/v2").await;
    assert!(metadata["extensions"].as_array().unwrap().contains(&json!("model_repository")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_makes_room_and_comes_back() {
    let repository = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        declare(repository.path(), name, "1", "affine");
    }
    // One model's cost, as the server measures it.
    let probe = start("affine", repository.path(), &[]);
    assert_eq!(load(&probe, "a").await.0, 200);
    let bytes = probe.line("loaded a model of the repository")["bytes"].as_u64().unwrap();
    assert!(bytes > 0);
    drop(probe);
    // Room for two of three: their measured sizes differ by a few pages.
    let room = (bytes * 5 / 2).to_string();
    let server = start("affine", repository.path(), &["--max-models-bytes", &room]);
    for name in ["a", "b"] {
        assert_eq!(load(&server, name).await.0, 200);
    }
    let infer = async |name: &str| {
        ask(&server, &format!("/v2/models/{name}/infer"), &affine(&[[1.0, 2.0]])).await.0
    };
    assert_eq!(infer("a").await, 200);
    assert_eq!(load(&server, "c").await.0, 200);
    assert_eq!(state(&server, "b", "1").await.0, "UNAVAILABLE");
    assert!(state(&server, "b", "1").await.1.contains("made room"));
    assert_eq!(
        (state(&server, "a", "1").await.0, state(&server, "c", "1").await.0),
        ("READY".into(), "READY".into())
    );
    // It comes back with its next request, in the place of the one that was not used for longest.
    assert_eq!(infer("c").await, 200);
    assert_eq!(infer("b").await, 200);
    assert_eq!(state(&server, "a", "1").await.0, "UNAVAILABLE");
    // The pod's own model is never the one.
    assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
    // One that was unloaded does not come back by itself.
    assert_eq!(ask(&server, "/v2/repository/models/a/unload", &json!({})).await.0, 200);
    assert_eq!(infer("a").await, 404);
    let small = start("affine", repository.path(), &["--max-models-bytes", "1"]);
    let (status, body) = load(&small, "a").await;
    assert!(
        status == 422 && body["error"].as_str().unwrap().contains("--max-models-bytes"),
        "{status} {body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_survive_an_unload() {
    let repository = tempfile::tempdir().unwrap();
    declare(repository.path(), "slow", "1", "slow");
    let server = start("affine", repository.path(), &["--workers", "1"]);
    assert_eq!(load(&server, "slow").await.0, 200);
    let request = server.post("/v2/models/slow/infer").body(slow(20_000).to_string());
    let running = tokio::spawn(async move { request.send().await.unwrap().status().as_u16() });
    eventually("in flight", async || {
        server.metric("slipway_runtime_requests_in_flight").await == 1.0
    })
    .await;
    assert_eq!(ask(&server, "/v2/repository/models/slow/unload", &json!({})).await.0, 200);
    assert_eq!(running.await.unwrap(), 200);
    assert_eq!(ask(&server, "/v2/models/slow/infer", &slow(1)).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_models_stay_outside() {
    let repository = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let place = repository.path().join(name).join("1");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("model.onnx"), bytes).unwrap();
    };
    // A graph (7) with an initializer (5): [8] floats (1) whose data (13) is at the `location`
    // /etc/passwd.
    let entry = [&[10, 8][..], b"location", &[18, 11], b"/etc/passwd"].concat();
    let tensor = [&[8, 8, 16, 1, 106, entry.len() as u8][..], &entry, &[112, 1]].concat();
    let initializer = [&[42, tensor.len() as u8][..], &tensor].concat();
    write("outside", &[&[58, initializer.len() as u8][..], &initializer].concat());
    write("huge", &[58, 11, 42, 9, 8, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 16, 1]);
    write("noise", &[0xff; 100]);
    write("empty", b"");
    declare(repository.path(), "bomb", "1", "bomb");
    declare(repository.path(), "zipmap", "1", "zipmap");
    let server = start("affine", repository.path(), &["--max-models-bytes", "200000000"]);
    for (name, part) in [
        ("outside", "outside the model's directory"),
        ("huge", "declares 34359738368 elements"),
        ("noise", "not a model"),
        ("empty", "InvalidModel"),
        ("zipmap", "zipmap=False"),
        // 4 GiB out of 180 bytes.
        ("bomb", "wants more memory than the 200000000 bytes"),
    ] {
        let (status, body) = load(&server, name).await;
        let text = body["error"].as_str().unwrap();
        assert!(status == 422 && text.contains(part), "{name}: {status} {body}");
        let (state, reason) = state(&server, name, "1").await;
        assert!(state == "UNAVAILABLE" && !reason.is_empty(), "{name}: {state} {reason}");
        // Nobody else notices.
        assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
    }
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
    let peak = server.peak_memory();
    assert!(peak < 300 << 20, "the server took {peak} bytes");
    tokio::time::timeout(Duration::from_secs(1), server.get("/v2")).await.unwrap();
}

#[test]
fn the_trial_of_a_model_has_help() {
    let (code, help, err) = run_program(&["vet", "--help"], &[]);
    assert!(
        code == Some(0) && help.contains("Usage: slipway-runtime") && err.is_empty(),
        "{help}{err}"
    );
}

#[test]
fn a_model_that_does_not_load_fails_its_trial() {
    let arguments = ["vet", "--model", "/nowhere.onnx", "--memory-bytes", "1000000"];
    let (code, out, err) = run_program(&arguments, &[]);
    assert!(code == Some(1) && out.contains("\"message\""), "{out}{err}");
    assert!(err.starts_with("error: ") && err.contains("/nowhere.onnx"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_extension_conforms() {
    let repository = tempfile::tempdir().unwrap();
    let server = start("simple", repository.path(), &[]);
    let options = ConformanceOptions {
        url: server.api.clone(),
        grpc: Some(server.api.clone()),
        model: "m".into(),
        timeout: DEADLINE,
    };
    let report = run_checks(&options).await.unwrap();
    let of_repository = |name: &str| name.contains(".repository.");
    let checked = report.checks.iter().filter(|row| of_repository(row.name));
    assert!(checked.clone().count() == 4, "{}", report.to_table());
    assert!(checked.clone().all(|row| row.outcome == CheckOutcome::Pass), "{}", report.to_table());
}
