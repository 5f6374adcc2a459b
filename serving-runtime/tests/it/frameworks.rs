//! Models of other libraries, converted to ONNX, give the answers of the library itself.
//! `examples/frameworks/train.py` and `train_pytorch.py` wrote both.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use crate::support::Server;

/// Largest difference that float32 arithmetic in another order may cause.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Reference {
    input: String,
    output: String,
    rows: Vec<Vec<f64>>,
    expected: Vec<Vec<f64>>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/frameworks").join(name)
}

async fn agrees(name: &str) {
    let reference: Reference =
        serde_json::from_slice(&std::fs::read(folder(name).join("reference.json")).unwrap())
            .unwrap();
    let server = Server::spawn(&folder(name).join("model.onnx").display().to_string(), &[], &[]);
    server.line("ready");
    // All rows at once, and the first alone: batching must change nothing.
    for count in [reference.rows.len(), 1] {
        let rows = &reference.rows[..count];
        let body = json!({
            "inputs": [{"name": reference.input, "datatype": "FP32", "shape": [count, rows[0].len()], "data": rows}],
            "outputs": [{"name": reference.output}],
        });
        let answer = server
            .http
            .post(format!("{}/v2/models/m/infer", server.api))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        let answer: serde_json::Value = answer.json().await.unwrap();
        let got: Vec<f64> = serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap();
        let want: Vec<f64> = reference.expected[..count].concat();
        assert_eq!(got.len(), want.len(), "{name}");
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= TOLERANCE, "{name}: {worst} from what the library says");
    }
}

#[tokio::test]
async fn scikit_learn() {
    agrees("sklearn").await;
}

#[tokio::test]
async fn xgboost() {
    agrees("xgboost").await;
}

#[tokio::test]
async fn pytorch() {
    agrees("pytorch").await;
}

#[tokio::test]
async fn lightgbm() {
    agrees("lightgbm").await;
    agrees("lightgbm-regressor").await;
}
