//! Baselines: verified with the model, golden requests before readiness, traffic in bins; and
//! outcomes.

use std::path::PathBuf;

use serde_json::{Value, json};
use slipway_baseline::{
    BaselineModel, BaselineTensorSpec, CalibrationCurve, FORMAT, FeatureColumn, GoldenRequest,
    GoldenSet, GoldenTensor, ModelBaseline, NumericTolerance, ReferenceHistogram,
};

use super::support::{Server, digest, model};

fn spec(name: &str, datatype: &str, shape: &[i64]) -> BaselineTensorSpec {
    BaselineTensorSpec { name: name.into(), datatype: datatype.into(), shape: shape.to_vec() }
}

fn tensor(name: &str, datatype: &str, shape: &[usize], data: Value) -> GoldenTensor {
    let data = data.as_array().unwrap().clone();
    GoldenTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), data }
}

/// The baseline that `kubectl slipway baseline` makes of the model `classifier` and 100 rows.
fn baseline() -> ModelBaseline {
    let rows: Vec<f64> = (0..100).map(f64::from).collect();
    let scores: Vec<f64> = (0..100).map(|i| 0.5 + f64::from(i) / 200.0).collect();
    let feature = |(i, name): (usize, &str)| FeatureColumn {
        name: name.into(),
        input: "X".into(),
        column: i,
        histogram: ReferenceHistogram::numeric(&rows, 10),
    };
    let (inputs, outputs) = (
        vec![spec("X", "FP32", &[-1, 4])],
        vec![spec("label", "INT64", &[-1]), spec("probabilities", "FP32", &[-1, 3])],
    );
    let third = 1.0_f32 / 3.0;
    let request = GoldenRequest {
        inputs: vec![tensor("X", "FP32", &[1, 4], json!([2.0, 2.0, 2.0, 1.0]))],
        outputs: vec![
            tensor("label", "INT64", &[1], json!([10])),
            tensor("probabilities", "FP32", &[1, 3], json!([third, third, third])),
        ],
    };
    ModelBaseline {
        format: FORMAT.into(),
        model: BaselineModel { digest: digest(&model("classifier")), inputs, outputs },
        rows: 100,
        features: ["a", "b", "c", "d"].into_iter().enumerate().map(feature).collect(),
        predictions: Some(ReferenceHistogram::categorical(
            (0..100).map(|i| ["10", "20", "30"][i % 3]),
            64,
        )),
        scores: Some(ReferenceHistogram::numeric(&scores, 10)),
        calibration: CalibrationCurve::fit(
            &scores.iter().map(|s| (*s, true)).collect::<Vec<_>>(),
            10,
        ),
        golden: GoldenSet { tolerance: NumericTolerance::default(), requests: vec![request] },
    }
}

struct File(tempfile::TempDir);

impl File {
    fn new(baseline: &ModelBaseline) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("baseline.json"), baseline.to_vec().unwrap()).unwrap();
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("baseline.json")
    }
}

fn refused(file: &File, args: &[&str]) -> Value {
    let path = file.path().display().to_string();
    let args = [&["--baseline", &path], args].concat();
    Server::spawn(&model("classifier").display().to_string(), &args, &[]).failure()
}

#[tokio::test]
async fn traffic_is_counted_in_the_bins_of_the_baseline() {
    let file = File::new(&baseline());
    let path = file.path();
    let pin = digest(&path);
    let args = [
        "--baseline",
        &path.display().to_string(),
        "--baseline-digest",
        &pin,
        "--baseline-features",
        "b,a",
    ];
    let server = Server::start("classifier", &args);
    let golden = server.line("the golden requests are answered as the baseline says");
    assert_eq!(golden["buckets"], "[1, 2, 4, 8, 16, 32]");
    let body = json!({"inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "data": [9, 55, 0, 0, 5, 1e9, 0, 0]}]});
    assert_eq!(server.infer(&body).await.0, 200);
    // A rejected request does not count as traffic of the model.
    let bad =
        json!({"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]});
    assert_eq!(server.infer(&bad).await.0, 400);
    let base = "modeldeployment=\"test\",revision=\"rev1\"";
    let bin = async |feature: &str, bin: &str| {
        server
            .metric(&format!(
                "slipway_runtime_feature_bin_total{{{base},feature=\"{feature}\",bin=\"{bin}\"}}"
            ))
            .await
    };
    assert_eq!(
        (bin("a", "00").await, bin("b", "05").await, bin("b", "out_of_range").await),
        (2.0, 1.0, 1.0)
    );
    assert_eq!(
        server.metric("slipway_runtime_feature_bin_total").await,
        4.0,
        "two rows of the two features asked for"
    );
    assert_eq!(server.metric("slipway_runtime_features_left_out").await, 2.0);
    assert!((server.metric("slipway_runtime_feature_reference_share").await - 2.0).abs() < 1e-9);
    assert_eq!(server.metric("slipway_runtime_prediction_bin_total").await, 2.0);
    assert_eq!(server.metric("slipway_runtime_score_bin_total").await, 2.0);
    // Every score of the reference was right.
    assert_eq!(server.metric("slipway_runtime_expected_correct_total").await, 2.0);
    assert_eq!(server.metric("slipway_runtime_expected_incorrect_total").await, 0.0);
}

#[test]
fn a_model_that_answers_otherwise_is_never_ready() {
    let mut wrong = baseline();
    wrong.golden.requests[0].outputs[1].data[2] = json!(0.4);
    let failure = refused(&File::new(&wrong), &[]);
    assert_eq!(
        (&failure["reason"], &failure["permanent"]),
        (&"GoldenRequestFailed".into(), &true.into()),
        "{failure}"
    );
    let message = failure["message"].as_str().unwrap();
    for part in [
        "output \"probabilities\"",
        "golden request 0",
        "value 2 is 0.333",
        "instead of 0.4",
        "difference",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    wrong = baseline();
    wrong.golden.requests[0].outputs[0].data[0] = json!(30);
    let failure = refused(&File::new(&wrong), &["--batching=disabled"]);
    assert!(failure["message"].as_str().unwrap().contains("output \"label\""), "{failure}");
}

#[test]
fn a_baseline_of_something_else_is_refused() {
    let told = |failure: &Value, reason: &str, part: &str| {
        assert_eq!(
            (&failure["reason"], &failure["permanent"]),
            (&reason.into(), &true.into()),
            "{failure}"
        );
        assert!(failure["message"].as_str().unwrap().contains(part), "{failure}");
    };
    let mut other = baseline();
    other.model.digest = digest(&model("mean"));
    told(&refused(&File::new(&other), &[]), "InvalidBaseline", "is of the model sha256:");
    let mut other = baseline();
    other.model.inputs[0].shape = vec![-1, 5];
    told(&refused(&File::new(&other), &[]), "InvalidBaseline", "model.inputs");
    let file = File::new(&baseline());
    told(
        &refused(&file, &["--baseline-digest", &digest(&model("mean"))]),
        "DigestMismatch",
        "the baseline: ",
    );
    std::fs::write(file.path(), "{}").unwrap();
    told(&refused(&file, &[]), "InvalidBaseline", "kubectl slipway baseline");
    std::fs::remove_file(file.path()).unwrap();
    told(&refused(&file, &[]), "ModelNotFound", "the baseline: ");
}
