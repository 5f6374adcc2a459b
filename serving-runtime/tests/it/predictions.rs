//! What a pod reports of its predictions: labels for the issuer of prediction ids, and counts.

use serde_json::json;
use slipway_prediction_id::{PredictedLabel, PredictionReport};

use super::support::{Server, answer};

#[tokio::test]
async fn labels_are_told_to_whoever_issues_ids_and_to_nobody_in_the_body() {
    let server = Server::start("classifier", &[]);
    // The label of such a row is 10 or 20.
    let rows = [[9.0, 0.0, 0.0, 0.0], [0.0, 9.0, 0.0, 0.0], [0.0, 8.0, 0.0, 0.0]];
    let body =
        json!({"inputs": [{"name": "X", "shape": [3, 4], "datatype": "FP32", "data": rows}]});
    let response = server.post("/v2/models/m/infer").body(body.to_string()).send().await.unwrap();
    let told =
        PredictionReport::decode(response.headers()["x-slipway-prediction"].to_str().unwrap())
            .unwrap();
    assert_eq!(told.labels, [10, 20, 20].map(|label| Some(PredictedLabel::Number(label))));
    assert!(!response.headers().contains_key("x-slipway-prediction-id"));
    let (status, body) = answer(response).await;
    assert_eq!((status, &body["parameters"]["prediction_id"]), (200, &json!(null)));
    let class = |n: u8| {
        format!(
            "slipway_runtime_predictions_total{{modeldeployment=\"test\",revision=\"rev1\",class=\"{n}\"}}"
        )
    };
    assert_eq!((server.metric(&class(10)).await, server.metric(&class(20)).await), (1.0, 2.0));
    assert_eq!(server.metric("slipway_runtime_prediction_confidence_count").await, 3.0);
}

#[tokio::test]
async fn feedback_is_not_taken_here() {
    let server = Server::start("affine", &[]);
    assert_eq!(server.post("/v2/models/m/feedback").body("{}").send().await.unwrap().status(), 404);
}
