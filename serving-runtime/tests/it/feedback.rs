//! Prediction ids and what comes back for them.

use serde_json::{Value, json};

use super::support::{Server, answer};

async fn predict(server: &Server, rows: &[[f32; 4]]) -> String {
    let body = json!({"inputs": [{"name": "X", "shape": [rows.len(), 4], "datatype": "FP32", "data": rows}]});
    let response = server.post("/v2/models/m/infer").body(body.to_string()).send().await.unwrap();
    let header = response.headers()["x-slipway-prediction-id"].to_str().unwrap().to_owned();
    let (status, body) = answer(response).await;
    assert_eq!(status, 200);
    assert_eq!(body["parameters"]["prediction_id"], header.as_str());
    header
}

async fn feedback(server: &Server, body: Value) -> (u16, Value) {
    answer(server.post("/v2/models/m/feedback").body(body.to_string()).send().await.unwrap()).await
}

async fn counted(server: &Server, revision: &str, result: &str) -> f64 {
    let labels = format!("{{modeldeployment=\"test\",revision=\"{revision}\",result=\"{result}\"}}");
    server.metric(&format!("slipway_runtime_feedback_total{labels}")).await
}

/// The label of such a row is 10, 20 or 30.
const TEN: [f32; 4] = [9.0, 0.0, 0.0, 0.0];
const TWENTY: [f32; 4] = [0.0, 9.0, 0.0, 0.0];

#[tokio::test]
async fn feedback_is_counted_once_for_who_predicted() {
    let server = Server::start("classifier", &[]);
    let other = Server::start("classifier", &["--revision", "rev2"]);
    let own = predict(&server, &[TEN]).await;
    let foreign = predict(&other, &[TEN]).await;
    let many = predict(&server, &[TEN, TWENTY, TWENTY]).await;
    let items = json!({"feedback": [
        {"prediction_id": own, "label": 10},
        {"prediction_id": foreign, "label": "20"},
        {"prediction_id": many, "labels": [10, null, 30]},
        {"prediction_id": own, "label": 10},
        {"prediction_id": "nonsense", "label": 10}]});
    let (status, body) = feedback(&server, items).await;
    assert_eq!(status, 200);
    assert_eq!(body, json!({"accepted": 3, "rejected": 2, "reasons": {"duplicate": 1, "malformed_id": 1}}));
    assert_eq!((counted(&server, "rev1", "correct").await, counted(&server, "rev1", "incorrect").await), (2.0, 1.0));
    assert_eq!((counted(&server, "rev2", "correct").await, counted(&server, "rev2", "incorrect").await), (0.0, 1.0));
    assert_eq!(server.metric("slipway_runtime_feedback_rejected_total").await, 2.0);
    assert_eq!(counted(&other, "rev2", "correct").await, 0.0);
    let class = |n: u8| {
        format!("slipway_runtime_predictions_total{{modeldeployment=\"test\",revision=\"rev1\",class=\"{n}\"}}")
    };
    assert_eq!((server.metric(&class(10)).await, server.metric(&class(20)).await), (2.0, 2.0));
    assert_eq!(server.metric("slipway_runtime_prediction_confidence_count").await, 4.0);
    // Feedback is no inference.
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 2.0);
}

#[tokio::test]
async fn feedback_that_makes_no_sense_is_refused() {
    let server = Server::start("classifier", &["--feedback-ttl-seconds", "60"]);
    for body in [json!({}), json!([]), json!({"feedback": 3}), json!({"feedback": [{"label": 3}]})] {
        let (status, answer) = feedback(&server, body).await;
        assert!(status == 400 && answer["error"].as_str().unwrap().contains("prediction_id"), "{answer}");
    }
    let id = predict(&server, &[TEN]).await;
    let (_, body) =
        feedback(&server, json!({"feedback": [{"prediction_id": id}, {"prediction_id": id, "label": {}}]})).await;
    assert_eq!(body, json!({"accepted": 0, "rejected": 2, "reasons": {"invalid_label": 2}}));
    let response = server.post("/v2/models/other/feedback").body("{}").send().await.unwrap();
    assert_eq!(response.status(), 404);
    // A model without labels has nothing to compare.
    let server = Server::start("affine", &[]);
    let body = json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]});
    let (_, body) = server.infer(&body).await;
    let id = body["parameters"]["prediction_id"].as_str().unwrap();
    assert_eq!(
        feedback(&server, json!({"feedback": [{"prediction_id": id, "labels": [1, 2, 3]}]})).await.1["rejected"],
        1
    );
}
