//! Rejected requests, with their status and error text.

use std::io::Write as _;

use serde_json::{Value, json};

use super::support::{Server, answer};

fn input(name: &str, data: &Value) -> Value {
    json!({"name": name, "shape": [1, 4], "datatype": "INT32", "data": data})
}

fn with(key: &str, value: Value) -> Value {
    let mut second = input("INPUT1", &json!([1, 2, 3, 4]));
    second[key] = value;
    json!({"inputs": [input("INPUT0", &json!([1, 2, 3, 4])), second]})
}

#[tokio::test]
async fn bad_requests_are_400_and_name_the_part() {
    let server = Server::start("simple", &["--max-request-rows", "8"]);
    let good = [input("INPUT0", &json!([1, 2, 3, 4])), input("INPUT1", &json!([1, 2, 3, 4]))];
    let outputs = |o: Value| json!({"inputs": good, "outputs": o});
    let ints = |n: usize| vec![0; n];
    let cases = [
        // Not a request at all.
        (json!([]), "JSON inference request"),
        (json!("x"), "JSON inference request"),
        (json!({}), "missing \"INPUT0\", \"INPUT1\""),
        (json!({"inputs": []}), "missing \"INPUT0\", \"INPUT1\""),
        (json!({"inputs": null}), "missing"),
        (json!({"inputs": {}}), "inputs: "),
        (json!({"inputs": [7]}), "inputs[0]: "),
        (json!({"inputs": [{"name": "INPUT0"}]}), "missing field `shape`"),
        // Data.
        (with("data", json!([1, null, 3, 4])), "inputs[1].data"),
        (with("data", json!([1, "2", 3, 4])), "element 1"),
        (with("data", json!([1, 2, 3])), "has 3 elements; the shape [1, 4] needs 4"),
        (with("data", json!([1, 2, 3, 4, 5])), "more than the 4"),
        (with("data", json!([[1, 2], [3, 4]])), "does not fit shape"),
        (with("data", json!([1, 2, 3, 5_000_000_000_i64])), "5000000000 is not an INT32"),
        (with("data", json!([1, 2, 3, 1.5])), "1.5 is not an INT32"),
        (with("data", Value::Null), "neither data nor parameter binary_data_size"),
        (with("parameters", json!({"binary_data_size": 16})), "both data and binary_data_size"),
        (with("parameters", json!({"shared_memory_region": "r"})), "not supported"),
        (with("parameters", json!(3)), "parameters"),
        // Names, datatypes, shapes.
        (json!({"inputs": [good[0]]}), "missing \"INPUT1\""),
        (json!({"inputs": [good[0], good[0]]}), "given twice"),
        (with("name", json!("INPUT9")), "no input \"INPUT9\"; it has \"INPUT0\", \"INPUT1\""),
        (with("datatype", json!("FP32")), "datatype is \"FP32\"; the model wants INT32"),
        (with("datatype", json!("int32")), "the model wants INT32"),
        (with("shape", json!([4])), "has 1 dimensions"),
        (with("shape", json!([1, 5])), "must be 4"),
        (with("shape", json!([-1, 4])), "negative"),
        (with("shape", json!([0, 4])), "more than the 0 elements"),
        (with("shape", json!([4, 0])), "must be 4"),
        (with("shape", json!([1_u64 << 62, 4])), "too large"),
        (with("shape", json!([1_u64 << 40, 4])), "needs"),
        (with("shape", json!([1.5, 4])), "inputs[1]"),
        // Outputs.
        (
            outputs(json!([{"name": "OUTPUT9"}])),
            "no output \"OUTPUT9\"; it has \"OUTPUT0\", \"OUTPUT1\"",
        ),
        (outputs(json!([{"name": "OUTPUT0"}, {"name": "OUTPUT0"}])), "asked for twice"),
        (
            outputs(json!([{"name": "OUTPUT0", "parameters": {"classification": 2}}])),
            "not supported",
        ),
        (
            outputs(json!([{"name": "OUTPUT0", "parameters": {"binary_data": "yes"}}])),
            "must be true or false",
        ),
        (outputs(json!({})), "outputs"),
        // The request itself.
        (json!({"id": 5, "inputs": good}), "id: "),
        (json!({"inputs": good, "parameters": {"timeout": "soon"}}), "microseconds"),
        (json!({"inputs": good, "parameters": {"binary_data_output": 1}}), "must be true or false"),
        // Rows.
        (
            json!({"inputs": [
                {"name": "INPUT0", "shape": [9, 4], "datatype": "INT32", "data": ints(36)},
                {"name": "INPUT1", "shape": [9, 4], "datatype": "INT32", "data": ints(36)}]}),
            "at most 8",
        ),
        // Only the engine can detect this: the rows differ.
        (
            json!({"inputs": [
                {"name": "INPUT0", "shape": [2, 4], "datatype": "INT32", "data": ints(8)},
                {"name": "INPUT1", "shape": [3, 4], "datatype": "INT32", "data": ints(12)}]}),
            "rows",
        ),
    ];
    let sent = cases.len() as f64;
    for (body, part) in cases {
        let (status, answer) = server.infer(&body).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(
            status == 400 && text.contains(part),
            "{body}\n-> {status} {answer}\nlacks {part:?}"
        );
    }
    for text in ["", "{", "{\"inputs\": [}", "\u{0}"] {
        let (status, body) =
            answer(server.post("/v2/models/m/infer").body(text).send().await.unwrap()).await;
        assert!(status == 400 && body["error"].is_string(), "{text:?} -> {status} {body}");
    }
    assert_eq!(server.code(400).await, sent + 4.0);
    assert_eq!(server.metric("slipway_runtime_requests_total").await, sent + 4.0);
}

#[tokio::test]
async fn binary_framing_is_checked() {
    let server = Server::start("affine", &[]);
    let header = |size: Value| {
        json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": size}}]}).to_string()
    };
    let send = async |length: String, body: Vec<u8>| {
        let request = server
            .post("/v2/models/m/infer")
            .header("inference-header-content-length", length)
            .body(body);
        answer(request.send().await.unwrap()).await
    };
    let framed =
        |json: String, blob: &[u8]| (json.len().to_string(), [json.as_bytes(), blob].concat());
    for ((length, body), part) in [
        (framed(header(json!(8)), &[0; 7]), "7 bytes are left"),
        (framed(header(json!(8)), &[0; 9]), "1 bytes follow the last tensor"),
        (framed(header(json!(4)), &[0; 4]), "2 elements of FP32 need"),
        (framed(header(json!(-8)), &[0; 8]), "a number of bytes"),
        (framed(header(json!("8")), &[0; 8]), "a number of bytes"),
        (framed(header(json!(u64::MAX)), &[0; 8]), "8 bytes are left"),
        (("999999".into(), header(json!(8)).into_bytes()), "but the body has"),
        (("-1".into(), vec![]), "must be a number of bytes"),
        (("0".into(), vec![0; 7]), "the body has 7 bytes"),
    ] {
        let (status, body) = send(length, body).await;
        assert!(
            status == 400 && body["error"].as_str().unwrap().contains(part),
            "{status} {body} lacks {part:?}"
        );
    }
}

#[tokio::test]
async fn a_nan_in_an_answer_is_null_in_json_and_itself_in_binary() {
    let server = Server::start("affine", &[]);
    let x = json!([{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [4, -1, 9, 16]}]);
    let (status, body) = server.infer(&json!({"inputs": x})).await;
    assert_eq!(status, 200, "{body}");
    // A NaN in one row does not affect the other row's answer.
    let (y, root) = (&body["outputs"][0], &body["outputs"][1]);
    assert_eq!((&y["data"], &y["parameters"]), (&json!([9.0, -1.0, 19.0, 33.0]), &Value::Null));
    assert_eq!(
        (&root["data"], &root["parameters"]),
        (&json!([2.0, null, 3.0, 4.0]), &json!({"non_finite_elements": 1}))
    );
    let body = json!({"inputs": x, "parameters": {"binary_data_output": true}}).to_string();
    let response = server.post("/v2/models/m/infer").body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let bytes = response.bytes().await.unwrap();
    let roots: Vec<f32> = bytes[bytes.len() - 16..]
        .chunks(4)
        .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    assert!(roots[0] == 2.0 && roots[1].is_nan() && roots[2..] == [3.0, 4.0], "{roots:?}");
    assert_eq!(server.metric("slipway_runtime_nan_outputs_total").await, 2.0);
    assert_eq!((server.code(422).await, server.code(200).await), (0.0, 2.0));
}

#[tokio::test]
async fn missing_values_come_as_null_or_as_python_writes_them() {
    let server = Server::start("affine", &[]);
    let send = async |data: &str| {
        let body = format!(
            r#"{{"id": "NaN \"NaN\"", "inputs": [{{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": {data}}}], "outputs": [{{"name": "y"}}]}}"#
        );
        answer(server.post("/v2/models/m/infer").body(body).send().await.unwrap()).await
    };
    for data in ["[[1.5, null], [null, 3]]", "[[1.5, NaN], [NaN, 3]]", "[1.5,NaN,null,3]"] {
        let (status, body) = send(data).await;
        assert_eq!((status, &body["id"]), (200, &json!("NaN \"NaN\"")), "{body}");
        assert_eq!(body["outputs"][0]["data"], json!([4.0, null, null, 7.0]), "{data}");
    }
    for data in [
        "[1.5, -NaN, 1, 2]",
        "[1.5, nan, 1, 2]",
        "[NaNNaN, 1, 2, 3]",
        "[Infinity, 1, 2, 3]",
        "NaN",
        "[\"NaN\", 1, 2, 3]",
    ] {
        let (status, body) = send(data).await;
        assert_eq!(status, 400, "{data}: {body}");
    }
    let simple = Server::start("simple", &[]);
    let whole = json!({"inputs": [
        {"name": "INPUT0", "shape": [1, 4], "datatype": "INT32", "data": [1, null, 3, 4]},
        {"name": "INPUT1", "shape": [1, 4], "datatype": "INT32", "data": [1, 2, 3, 4]}]});
    let (status, body) = simple.infer(&whole).await;
    assert!(
        status == 400 && body["error"].as_str().unwrap().contains("null is not an INT32"),
        "{status} {body}"
    );
}

#[tokio::test]
async fn a_dimension_may_be_0_where_the_model_takes_it() {
    let server = Server::start("affine", &[]);
    for data in [json!([]), Value::Null] {
        let mut input = json!({"name": "x", "shape": [0, 2], "datatype": "FP32", "data": data});
        if data.is_null() {
            input.as_object_mut().unwrap().remove("data");
            input["parameters"] = json!({"binary_data_size": 0});
        }
        let (status, body) = server.infer(&json!({"inputs": [input]})).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(
            (&body["outputs"][0]["shape"], &body["outputs"][0]["data"]),
            (&json!([0, 2]), &json!([]))
        );
    }
    let huge = json!({"inputs": [{"name": "x", "shape": [0, 3], "datatype": "FP32", "data": []}]});
    assert_eq!(server.infer(&huge).await.0, 400);
    // The mean of no rows: whatever error ONNX Runtime returns, it must not count as a failure of
    // the server.
    let mean = Server::start("mean", &[]);
    let (status, body) = mean
        .infer(&json!({"inputs": [{"name": "x", "shape": [0, 2], "datatype": "FP32", "data": []}]}))
        .await;
    assert!(status == 200 || status == 422, "{status} {body}");
    assert_eq!(mean.code(500).await, 0.0);
}

#[tokio::test]
async fn half_floats_need_binary() {
    let server = Server::start("types", &[]);
    let body =
        json!({"inputs": [{"name": "f16", "shape": [1], "datatype": "FP16", "data": [1.0]}]});
    let (status, body) = server.infer(&body).await;
    assert!(
        status == 400 && body["error"].as_str().unwrap().contains("FP16 has no form in JSON"),
        "{body}"
    );
}

#[tokio::test]
async fn paths_methods_sizes_and_encodings() {
    let server = Server::start("affine", &["--max-body-bytes", "1000"]);
    for (path, status) in [
        ("/", 404),
        ("/v2/nothing", 404),
        ("/v2/models/other", 404),
        ("/v2/models/other/ready", 404),
        ("/v2/models/m/versions/2", 404),
        ("/v2/models/m/infer", 405),
        ("/v2/health/ready/", 200),
    ] {
        let (got, body) = server.get(path).await;
        assert!(
            got == status && (status == 200 || body["error"].is_string()),
            "{path}: {got} {body}"
        );
    }
    let post = async |path: &str, encoding: &str, body: Vec<u8>| {
        let request = server.post(path).header("content-encoding", encoding).body(body);
        answer(request.send().await.unwrap()).await
    };
    assert_eq!(post("/v2/models/other/infer", "identity", vec![]).await.0, 404);
    assert_eq!(post("/v2/models/m", "identity", vec![]).await.0, 405);
    let (status, body) = post("/v2/models/m/infer", "identity", vec![b' '; 1001]).await;
    assert!(status == 413 && body["error"].as_str().unwrap().contains("1000 bytes"), "{body}");
    // Small on the wire, large when decompressed.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![b' '; 1 << 20]).unwrap();
    let packed = gzip.finish().unwrap();
    assert_eq!(
        post("/v2/models/m/infer", "gzip", packed[..900.min(packed.len())].to_vec()).await.0 / 100,
        4
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&[b' '; 100_000]).unwrap();
    assert_eq!(post("/v2/models/m/infer", "gzip", gzip.finish().unwrap()).await.0, 413);
    assert_eq!(post("/v2/models/m/infer", "gzip", b"nonsense".to_vec()).await.0, 400);
    assert_eq!(post("/v2/models/m/infer", "br", b"x".to_vec()).await.0, 415);
    // Without a declared length.
    let pieces = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100])));
    let request = server.post("/v2/models/m/infer").body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(request.send().await.unwrap().status(), 413);
    assert_eq!(server.probe("/nothing").await, 404);
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
}
