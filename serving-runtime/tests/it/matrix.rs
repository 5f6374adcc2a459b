//! Cases that other servers handle badly, row by row, with this server's answers.
//! `docs/protocol.md` has the table.

use serde_json::{Value, json};

use super::support::{Server, answer};

fn input(name: &str, datatype: &str, data: Value) -> Value {
    json!({"name": name, "shape": [1, 4], "datatype": datatype, "data": data})
}

#[tokio::test]
async fn every_row_has_its_answer() {
    let server = Server::start("simple", &["--max-request-rows", "8"]);
    let (a, b) = (
        input("INPUT0", "INT32", json!([1, 2, 3, 4])),
        input("INPUT1", "INT32", json!([1, 1, 1, 1])),
    );
    let with = |first: Value| json!({"inputs": [first, b]}).to_string();
    let good = json!({"inputs": [a, b]});
    let and = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body.to_string()
    };
    let rows: Vec<(&str, String, u16, &str)> = vec![
        ("bad JSON", "{\"inputs\": [".into(), 400, "JSON"),
        ("an empty body", String::new(), 400, "JSON"),
        ("an empty object", "{}".into(), 400, "missing \"INPUT0\", \"INPUT1\""),
        ("inputs []", json!({"inputs": []}).to_string(), 400, "missing \"INPUT0\", \"INPUT1\""),
        (
            "null in the data",
            with(input("INPUT0", "INT32", json!([1, null, 3, 4]))),
            400,
            "inputs[0].data",
        ),
        (
            "a text in the data",
            with(input("INPUT0", "INT32", json!([1, "x", 3, 4]))),
            400,
            "element 1: \"x\" is not an INT32",
        ),
        (
            "too few elements",
            with(input("INPUT0", "INT32", json!([1, 2, 3]))),
            400,
            "has 3 elements",
        ),
        (
            "too many elements",
            with(input("INPUT0", "INT32", json!([1, 2, 3, 4, 5]))),
            400,
            "more than the 4 elements",
        ),
        ("a missing input", json!({"inputs": [a]}).to_string(), 400, "missing \"INPUT1\""),
        (
            "a wrong datatype",
            with(input("INPUT0", "FP32", json!([1, 2, 3, 4]))),
            400,
            "the model wants INT32",
        ),
        (
            "an unknown input",
            with(input("INPUT9", "INT32", json!([1, 2, 3, 4]))),
            400,
            "no input \"INPUT9\"",
        ),
        ("a duplicate input", json!({"inputs": [a, a, b]}).to_string(), 400, "given twice"),
        (
            "an unknown output",
            and("outputs", json!([{"name": "OUTPUT9"}])),
            400,
            "no output \"OUTPUT9\"",
        ),
        (
            "a batch beyond the bound",
            json!({"inputs": [
                {"name": "INPUT0", "shape": [9, 4], "datatype": "INT32", "data": vec![1; 36]},
                {"name": "INPUT1", "shape": [9, 4], "datatype": "INT32", "data": vec![1; 36]}]})
            .to_string(),
            400,
            "at most 8",
        ),
        (
            "INT32 overflow",
            with(input("INPUT0", "INT32", json!([5_000_000_000_u64, 2, 3, 4]))),
            400,
            "5000000000 is not an INT32",
        ),
        ("a numeric id", and("id", json!(7)), 400, "id"),
        ("a good request", good.to_string(), 200, ""),
    ];
    for (row, body, status, part) in rows {
        let (got, body) =
            answer(server.post("/v2/models/m/infer").body(body).send().await.unwrap()).await;
        let text = body["error"].as_str().unwrap_or_default();
        assert!(
            got == status && text.contains(part),
            "{row}: {got} {body}, wanted {status} with {part:?}"
        );
    }
    let (status, body) =
        answer(server.post("/v2/models/other/infer").body(good.to_string()).send().await.unwrap())
            .await;
    assert!(status == 404 && body["error"].is_string(), "an unknown model: {status} {body}");
    assert_eq!(server.get("/v2/models/other/ready").await.0, 404);

    // FP16 in JSON, NaN in JSON and NaN in binary have their own models; full queues and deadlines
    // are in `overload`.
    let types = Server::start("types", &[]);
    let half =
        json!({"inputs": [{"name": "f16", "shape": [1], "datatype": "FP16", "data": [1.0]}]});
    let (status, body) = types.infer(&half).await;
    assert!(
        status == 400 && body["error"].as_str().unwrap().contains("binary"),
        "FP16 in JSON: {status} {body}"
    );
    let affine = Server::start("affine", &[]);
    let x = json!([{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [4, -1]}]);
    let (status, body) = affine.infer(&json!({"inputs": x})).await;
    assert!(
        status == 200 && body["outputs"][1]["data"] == json!([2.0, null]),
        "NaN in JSON: {status} {body}"
    );
    let binary = json!({"inputs": x, "parameters": {"binary_data_output": true}});
    assert_eq!(affine.infer(&binary).await.0, 200, "NaN in binary");
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_ask() {
    use std::io::Read as _;
    let server = Server::start("affine", &[]);
    let rows = vec![[1.0_f32, 2.0]; 400];
    let body = super::support::affine(&rows).to_string();
    let (_, plain) =
        answer(server.post("/v2/models/m/infer").body(body.clone()).send().await.unwrap()).await;
    for encoding in ["gzip", "deflate"] {
        let request = server
            .post("/v2/models/m/infer")
            .header("accept-encoding", encoding)
            .body(body.clone());
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], encoding);
        let packed = response.bytes().await.unwrap();
        let mut text = String::new();
        match encoding {
            "gzip" => {
                flate2::read::GzDecoder::new(packed.as_ref()).read_to_string(&mut text).unwrap()
            }
            _ => flate2::read::ZlibDecoder::new(packed.as_ref()).read_to_string(&mut text).unwrap(),
        };
        assert!(packed.len() < text.len() / 4);
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["outputs"], plain["outputs"]);
    }
}
