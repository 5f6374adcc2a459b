//! Which requests run together.

use serde_json::json;

use crate::support::{Server, affine};

#[tokio::test]
async fn merged_requests_get_their_own_rows() {
    let server = Server::start("affine", &["--workers", "1"]);
    assert_eq!(server.line("the model is loaded and warm")["batching"], true);
    let requests = (0..200_u16).map(|i| {
        let rows: Vec<[f32; 2]> = (0..=i % 3).map(|r| [f32::from(i), f32::from(r)]).collect();
        let server = &server;
        async move {
            let (status, body) = server.infer(&affine(&rows)).await;
            let want: Vec<f32> = rows.as_flattened().iter().map(|x| 2.0 * x + 1.0).collect();
            assert_eq!(status, 200, "{body}");
            assert_eq!(body["outputs"][0]["shape"], json!([rows.len(), 2]));
            assert_eq!(
                serde_json::from_value::<Vec<f32>>(body["outputs"][0]["data"].clone()).unwrap(),
                want
            );
        }
    });
    futures::future::join_all(requests).await;
    assert_eq!(server.code(200).await, 200.0);
}

#[tokio::test]
async fn one_bad_request_does_not_spoil_its_batch() {
    let server = Server::start("picky", &["--workers", "1"]);
    let requests = (0..100_u64).map(|i| {
        let server = &server;
        async move {
            let index = if i % 10 == 0 { 99 } else { i % 3 };
            let (status, body) = server
                .infer(&json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [index]}]}))
                .await;
            if index == 99 {
                assert_eq!(status, 500, "{body}");
            } else {
                assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([index as f32 + 1.0])));
            }
        }
    });
    futures::future::join_all(requests).await;
    assert_eq!((server.code(200).await, server.code(500).await), (90.0, 10.0));
}

#[tokio::test]
async fn models_that_mix_rows_are_not_batched() {
    let server = Server::start("mean", &[]);
    assert_eq!(server.line("the model is loaded and warm")["batching"], false);
    let requests = (0..50_u8).map(|i| {
        let server = &server;
        async move {
            let x = f32::from(i);
            let body =
                json!({"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [x, 0, x + 2.0, 4]}]});
            assert_eq!(server.infer(&body).await.1["outputs"][0]["data"], json!([x + 1.0, 2.0]));
        }
    });
    futures::future::join_all(requests).await;
}

/// Shapes do not show that this model mixes rows: it subtracts their mean, which for a single row
/// is the row itself.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_different_clients_are_merged_only_where_that_changes_nothing() {
    let server = Server::start("centre", &["--workers", "1"]);
    assert_eq!(server.line("the model is loaded and warm")["batching"], false);
    let reason = server.line("the model is loaded and warm")["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("ReduceMean")), "{reason}");
    let requests = (0..200_u8).map(|i| {
        let server = &server;
        async move {
            let x = f32::from(i);
            let body = json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [x, x + 2.0]}]});
            assert_eq!(server.infer(&body).await.1["outputs"][0]["data"], json!([0.0, 0.0]));
        }
    });
    futures::future::join_all(requests).await;
}

/// An option selects who decides; the metadata and a metric contain the decision and its reason.
#[tokio::test]
async fn the_owner_may_decide_what_is_merged() {
    let cases = [
        ("affine", "auto", "enabled", "proven"),
        ("affine", "disabled", "disabled", "disabled"),
        ("affine", "enabled", "enabled", "enabled"),
        ("centre", "auto", "disabled", "not_proven"),
        ("centre", "enabled", "enabled", "enabled"),
        ("mean", "enabled", "disabled", "outputs_differ"),
        ("slow", "enabled", "disabled", "no_batch_axis"),
    ];
    for (model, mode, batching, cause) in cases {
        let server = Server::start(model, &["--batching", mode]);
        let properties = server.get("/v2/models/m").await.1["properties"].clone();
        assert_eq!(
            (&properties["batching"], &properties["batching_cause"]),
            (&json!(batching), &json!(cause)),
            "{model} {mode}"
        );
        let series = format!(
            "slipway_runtime_batching{{modeldeployment=\"test\",revision=\"rev1\",reason=\"{cause}\"}}"
        );
        assert_eq!(
            server.metric(&series).await,
            f64::from(u8::from(batching == "enabled")),
            "{model} {mode}"
        );
        if (model, mode) == ("centre", "enabled") {
            let reason = properties["batching_reason"].as_str().unwrap();
            assert!(reason.contains("speaks against it"), "{reason}");
        }
    }
}
