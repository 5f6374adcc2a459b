//! What a pod fetches before it serves, and that it serves nothing else.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::load::{Web, status};
use super::random_graphs::with_weights_beside;
use super::support::{Server, digest, model};

/// Paths and their contents.
type Files = Arc<Mutex<Vec<(&'static str, Vec<u8>)>>>;

/// A store whose files may change.
async fn store(files: &Files) -> Web {
    let files = Arc::clone(files);
    Web::start(move |_, request| {
        let files = files.lock().unwrap();
        match files.iter().find(|(path, _)| *path == request.uri().path()) {
            Some((_, content)) => Response::new(Full::new(Bytes::from(content.clone()))),
            None => status(404),
        }
    })
    .await
}

fn of_model(name: &str) -> Vec<u8> {
    std::fs::read(model(name)).unwrap()
}

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_serves_what_its_first_step_has_fetched() {
    let files = Arc::new(Mutex::new(vec![("/latest/m.onnx", of_model("affine"))]));
    let web = store(&files).await;
    let uri = format!("http://{}/latest/m.onnx", web.address);
    let dir = tempfile::tempdir().unwrap();
    let (record, cache) = (text(&dir.path().join("record.json")), text(&dir.path().join("models")));
    let args = ["--fetched-record", &record, "--cache-dir", &cache];
    let (ended, told) = Server::fetch(&uri, &args);
    assert!(ended, "{told}");
    let bytes = of_model("affine").len();
    assert_eq!(told, json!({"digest": digest(&model("affine")), "bytes": bytes, "files": 1}));
    // The file is overwritten. The containers of this pod start again and serve what was fetched,
    // without a request to the store.
    files.lock().unwrap()[0].1 = of_model("simple");
    for _ in 0..2 {
        let server = Server::spawn(&uri, &args, &[]);
        server.line("ready");
        let properties = server.get("/v2/models/m").await.1["properties"].clone();
        assert_eq!(properties["digest"], digest(&model("affine")));
        assert_eq!(web.count(), 1);
    }
    // A file that was damaged in the meantime is fetched again; the store's new content has another
    // digest.
    let kept = dir
        .path()
        .join("models")
        .join(digest(&model("affine")).trim_start_matches("sha256:"))
        .join("model.onnx");
    std::fs::write(&kept, "damaged").unwrap();
    let failure = Server::spawn(&uri, &args, &[]).failure();
    assert_eq!(
        (&failure["reason"], &failure["permanent"]),
        (&json!("DigestMismatch"), &json!(true)),
        "{failure}"
    );
    // A later pod has the digest pinned.
    let pin = digest(&model("affine"));
    let (ended, told) = Server::fetch(&uri, &["--model-digest", &pin]);
    assert!(!ended && told["reason"] == "DigestMismatch", "{told}");
    assert!(told["message"].as_str().unwrap().contains(&digest(&model("simple"))), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_beside_the_graph_are_fetched_and_vouched_for() {
    let (graph, weights) = with_weights_beside("deep/w 1.bin", [2.0, 0.0, 0.0, 3.0]);
    let files = Arc::new(Mutex::new(vec![
        ("/m/graph.onnx", graph.clone()),
        ("/m/deep/w%201.bin", weights.clone()),
    ]));
    let web = store(&files).await;
    let uri = format!("http://{}/m/graph.onnx?token=secret", web.address);
    let line = |name: &str, content: &[u8]| {
        format!("{name} {} {}\n", content.len(), hex::encode(Sha256::digest(content)))
    };
    let list = [line("deep/w 1.bin", &weights), line("model.onnx", &graph)].concat();
    let want = format!("sha256:{}", hex::encode(Sha256::digest(list)));
    let cache = tempfile::tempdir().unwrap();
    let args = ["--cache-dir", &text(cache.path()), "--model-digest", &want];
    for _ in 0..2 {
        let server = Server::spawn(&uri, &args, &[]);
        server.line("ready");
        let x = json!({"inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 10.0]}]});
        let (status, body) = server.infer(&x).await;
        assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([2.0, 30.0])), "{body}");
        assert_eq!(server.get("/v2/models/m").await.1["properties"]["digest"], want);
        assert_eq!(web.count(), 2, "the second start finds both files");
    }
    // The same on a volume.
    let volume = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(volume.path().join("claim/deep")).unwrap();
    std::fs::write(volume.path().join("claim/graph.onnx"), &graph).unwrap();
    std::fs::write(volume.path().join("claim/deep/w 1.bin"), &weights).unwrap();
    let args = ["--volume-root", &text(volume.path()), "--model-digest", &want];
    let (ended, told) = Server::fetch("pvc://claim/graph.onnx", &args);
    assert!(ended && told["files"] == 2, "{told}");
    // One byte of the weights differs.
    std::fs::write(volume.path().join("claim/deep/w 1.bin"), [&[1], &weights[1..]].concat())
        .unwrap();
    files.lock().unwrap()[1].1[0] = 1;
    let fails = |uri: &str, args: &[&str], reason: &str, part: &str| {
        let (ended, told) = Server::fetch(uri, args);
        assert!(
            !ended && told["reason"] == reason && told["message"].as_str().unwrap().contains(part),
            "{told}"
        );
    };
    fails("pvc://claim/graph.onnx", &args, "DigestMismatch", "sha256:");
    fails(&uri, &["--model-digest", &want], "DigestMismatch", "sha256:");
    // The files are missing, or too large together.
    fails(
        &uri,
        &["--max-model-bytes", &(graph.len() + 15).to_string()],
        "InvalidModel",
        "larger than",
    );
    files.lock().unwrap().pop();
    fails(&uri, &[], "ModelNotFound", "deep/w 1.bin");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_cannot_be_taken_from_elsewhere() {
    let volume = tempfile::tempdir().unwrap();
    let claim = volume.path().join("claim");
    std::fs::create_dir_all(&claim).unwrap();
    std::fs::write(volume.path().join("secret"), [0; 16]).unwrap();
    std::os::unix::fs::symlink(volume.path().join("secret"), claim.join("link")).unwrap();
    let told = |location: &str| -> Value {
        let (graph, _) = with_weights_beside(location, [0.0; 4]);
        std::fs::write(claim.join("m.onnx"), graph).unwrap();
        let mut server =
            Server::spawn("pvc://claim/m.onnx", &["--volume-root", &text(volume.path())], &[]);
        server.failure()
    };
    for location in ["../secret", "/etc/hostname", "link"] {
        let failure = told(location);
        assert!(
            failure["reason"] == "InvalidModel"
                && failure["message"].as_str().unwrap().contains("out"),
            "{failure}"
        );
    }
    let failure = told("model.onnx");
    assert!(
        failure["message"].as_str().unwrap().contains("the name of the graph itself"),
        "{failure}"
    );
}
