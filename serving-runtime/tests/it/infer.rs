//! Answers: JSON and binary, every datatype, merged batches.

mod batching;

use std::io::Write as _;

use serde_json::{Value, json};

use super::support::{Server, affine, answer};

const HEADER: &str = "inference-header-content-length";

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

fn raw(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Sends a JSON header and blobs; returns the header and the blobs of the answer.
async fn binary(server: &Server, header: &Value, blobs: &[u8]) -> (Value, Vec<u8>) {
    let json = header.to_string();
    let request = server
        .post("/v2/models/m/infer")
        .header(HEADER, json.len())
        .body([json.as_bytes(), blobs].concat());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let length: usize =
        response.headers().get(HEADER).map_or(usize::MAX, |v| v.to_str().unwrap().parse().unwrap());
    let body = response.bytes().await.unwrap();
    let (json, blobs) = body.split_at(length.min(body.len()));
    (serde_json::from_slice(json).unwrap(), blobs.to_vec())
}

#[tokio::test]
async fn json_and_binary_agree() {
    let server = Server::start("classifier", &[]);
    let x = [[1.5, 2.0, 2.25, 4.0], [5.0, 1.0, 0.0, 0.0]];
    let (status, json) = server
        .infer(&json!({"id": "abc", "inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "data": x}]}))
        .await;
    assert_eq!(status, 200, "{json}");
    assert_eq!(json["id"], "abc");
    assert_eq!(json["model_name"], "m");
    assert_eq!(json["model_version"], "1");
    assert_eq!(
        json["outputs"][0],
        json!({"name": "label", "shape": [2], "datatype": "INT64", "data": [30, 10]})
    );
    let probabilities: Vec<f32> =
        serde_json::from_value(json["outputs"][1]["data"].clone()).unwrap();
    assert_eq!(json["outputs"][1]["shape"], json!([2, 3]));
    for row in probabilities.chunks(3) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }

    // Binary input, binary output for all.
    let blob = raw(x.as_flattened());
    let input = json!({"name": "X", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": blob.len()}});
    let header = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
    let (answer, blobs) = binary(&server, &header, &blob).await;
    assert_eq!(answer["outputs"][0]["parameters"]["binary_data_size"], 16);
    assert_eq!(answer["outputs"][1]["parameters"]["binary_data_size"], 24);
    assert_eq!(answer["outputs"][0].get("data"), None);
    assert_eq!(blobs[..16], [30_i64.to_le_bytes(), 10_i64.to_le_bytes()].concat());
    assert_eq!(f32s(&blobs[16..]), probabilities);

    // One output only, binary, with JSON input.
    let outputs = json!([{"name": "probabilities", "parameters": {"binary_data": true}}]);
    let header = json!({"inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "data": x.as_flattened()}], "outputs": outputs});
    let (answer, blobs) = binary(&server, &header, &[]).await;
    assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(f32s(&blobs), probabilities);

    // Only the bytes of the single input, with a batch of 1.
    let response =
        server.post("/v2/models/m/infer").header(HEADER, 0).body(raw(&x[0])).send().await.unwrap();
    let length: usize = response.headers()[HEADER].to_str().unwrap().parse().unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let body = response.bytes().await.unwrap();
    assert_eq!(f32s(&body[length + 8..]), probabilities[..3]);
}

#[tokio::test]
async fn every_datatype_passes_through() {
    let server = Server::start("types", &[]);
    let cases = [
        ("bool", "BOOL", json!([true, false]), vec![1, 0]),
        ("u8", "UINT8", json!([0, 255]), vec![0, 255]),
        ("u16", "UINT16", json!([1, 65535]), vec![1, 0, 255, 255]),
        (
            "u32",
            "UINT32",
            json!([1, 4_294_967_295_u32]),
            [1_u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat(),
        ),
        (
            "u64",
            "UINT64",
            json!([1, u64::MAX]),
            [1_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(),
        ),
        ("i8", "INT8", json!([-128, 127]), vec![128, 127]),
        ("i16", "INT16", json!([-2, 2]), [(-2_i16).to_le_bytes(), 2_i16.to_le_bytes()].concat()),
        ("i32", "INT32", json!([-2, 2]), [(-2_i32).to_le_bytes(), 2_i32.to_le_bytes()].concat()),
        (
            "i64",
            "INT64",
            json!([i64::MIN, i64::MAX]),
            [i64::MIN.to_le_bytes(), i64::MAX.to_le_bytes()].concat(),
        ),
        ("f32", "FP32", json!([0.1, -1.5]), raw(&[0.1, -1.5])),
        (
            "f64",
            "FP64",
            json!([0.1, -1.5]),
            [0.1_f64.to_le_bytes(), (-1.5_f64).to_le_bytes()].concat(),
        ),
        ("text", "BYTES", json!(["é", ""]), vec![2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0]),
    ];
    // FP16 exists in binary form only.
    let half = [0x3c00_u16.to_le_bytes(), 0xc000_u16.to_le_bytes()].concat();
    let half_input = json!({"name": "f16", "datatype": "FP16", "shape": [2], "parameters": {"binary_data_size": 4}});

    let mut inputs: Vec<Value> = cases
        .iter()
        .map(|(n, d, data, _)| json!({"name": n, "datatype": d, "shape": [2], "data": data}))
        .collect();
    inputs.push(half_input.clone());
    let names: Vec<Value> =
        cases.iter().map(|(n, ..)| json!({"name": format!("{n}_out")})).collect();
    let (answer, _) = binary(&server, &json!({"inputs": inputs, "outputs": names}), &half).await;
    for (output, (name, datatype, data, _)) in
        answer["outputs"].as_array().unwrap().iter().zip(&cases)
    {
        assert_eq!(output["datatype"], *datatype);
        assert_eq!(output["data"], *data, "{name}");
    }

    let mut blobs = Vec::new();
    let mut inputs = Vec::new();
    for (name, datatype, _, bytes) in &cases {
        blobs.extend_from_slice(bytes);
        inputs.push(
            json!({"name": name, "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": bytes.len()}}),
        );
    }
    inputs.push(half_input);
    blobs.extend_from_slice(&half);
    let mut names: Vec<Value> =
        cases.iter().map(|(n, ..)| json!({"name": format!("{n}_out")})).collect();
    names.push(json!({"name": "f16_out"}));
    let header =
        json!({"inputs": inputs, "outputs": names, "parameters": {"binary_data_output": true}});
    let (_, back) = binary(&server, &header, &blobs).await;
    assert_eq!(back, blobs);
}

#[tokio::test]
async fn metadata_health_and_versions() {
    let server = Server::start("simple", &["--model-version", "7"]);
    let (status, body) = server.get("/v2").await;
    assert_eq!(
        (status, &body["name"], &body["extensions"]),
        (
            200,
            &json!("slipway-runtime"),
            &json!(["binary_tensor_data", "statistics", "parameters"])
        )
    );
    assert!(body["version"].is_string());
    for path in [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/m/ready",
        "/v2/models/m/versions/7/ready",
    ] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    let tensor = |name: &str| json!({"name": name, "datatype": "INT32", "shape": [-1, 4]});
    let want = json!({"name": "m", "versions": ["7"], "platform": "onnx_onnxv1",
        "inputs": [tensor("INPUT0"), tensor("INPUT1")], "outputs": [tensor("OUTPUT0"), tensor("OUTPUT1")]});
    for path in ["/v2/models/m", "/v2/models/m/versions/7"] {
        let (status, mut metadata) = server.get(path).await;
        let properties = metadata.as_object_mut().unwrap().remove("properties").unwrap();
        assert_eq!((status, metadata), (200, want.clone()));
        assert_eq!(properties["batching"], "enabled");
    }
    let input = |name: &str| json!({"name": name, "datatype": "INT32", "shape": [1, 4], "data": [1, 2, 3, 4]});
    // Inputs may be in any order.
    let body = json!({"inputs": [input("INPUT1"), input("INPUT0")], "outputs": [{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]});
    let response =
        server.post("/v2/models/m/versions/7/infer").body(body.to_string()).send().await.unwrap();
    let (_, body) = answer(response).await;
    assert_eq!(body["outputs"][0]["data"], json!([0, 0, 0, 0]));
    assert_eq!(body["outputs"][1]["data"], json!([2, 4, 6, 8]));
    assert_eq!(body.get("id"), None);
}

#[tokio::test]
async fn compressed_bodies_and_http2() {
    let server = Server::start("affine", &[]);
    let body = affine(&[[1.0, 2.0]]).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(body.as_bytes()).unwrap();
    for (encoding, packed) in
        [("gzip", gzip.finish().unwrap()), ("deflate", zlib.finish().unwrap())]
    {
        let request =
            server.post("/v2/models/m/infer").header("content-encoding", encoding).body(packed);
        let (status, body) = answer(request.send().await.unwrap()).await;
        assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([3.0, 5.0])), "{encoding}");
    }
    let h2 = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let response =
        h2.post(format!("{}/v2/models/m/infer", server.api)).body(body).send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(answer(response).await.1["outputs"][0]["data"], json!([3.0, 5.0]));
}

/// Each worker has its own session; a pod without a CPU limit would have one for each core of its
/// node.
#[tokio::test]
async fn memory_bounds_the_workers() {
    for (limit, workers) in [("1000000", 1), ("100000000000", 4)] {
        let server = Server::start("wide", &["--workers", "4", "--max-memory-bytes", limit]);
        assert_eq!(server.line("the model is loaded and warm")["workers"], workers);
        if workers == 1 {
            let said = server.line("memory holds no more sessions of this model");
            assert_eq!(
                (&said["wanted"], &said["memory_bytes"]),
                (&json!(4), &json!(1_000_000)),
                "{said}"
            );
        }
    }
}

/// Slipway's gateway sends the size limit of the ModelDeployment; no header can exceed the server's
/// own limit.
#[tokio::test]
async fn a_body_may_be_as_large_as_the_gateway_says() {
    let options = [
        "--max-body-bytes",
        "2000",
        "--max-named-body-bytes",
        "20000",
        "--max-request-rows",
        "1000000",
    ];
    let server = Server::start("affine", &options);
    let status = async |bytes: usize, named: Option<&str>| {
        let mut body =
            json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]})
                .to_string();
        body.push_str(&" ".repeat(bytes - body.len()));
        let request = server.http.post(format!("{}/v2/models/m/infer", server.api)).body(body);
        let request = match named {
            Some(named) => request.header("x-slipway-max-request-bytes", named),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((status(2000, None).await, status(2001, None).await), (200, 413));
    assert_eq!(
        (status(10_000, Some("10000")).await, status(10_001, Some("10000")).await),
        (200, 413)
    );
    assert_eq!((status(1000, Some("1000")).await, status(1001, Some("1000")).await), (200, 413));
    assert_eq!(
        (status(20_000, Some("999999999")).await, status(20_001, Some("999999999")).await),
        (200, 413)
    );
    assert_eq!(status(2001, Some("many")).await, 413);
}

/// The first axis of a model that is not proven to treat rows independently may be the length of a
/// sequence.
#[tokio::test]
async fn a_long_sequence_is_not_too_many_rows() {
    let body = |rows: usize| {
        let x = vec![1.0; rows * 2];
        json!({"inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": x}]})
    };
    let sequence = Server::start("centre", &[]);
    assert_eq!(sequence.infer(&body(16_000)).await.0, 200);
    let rows = Server::start("affine", &[]);
    let (status, answer) = rows.infer(&body(4097)).await;
    assert!(
        status == 400 && answer["error"].as_str().unwrap().contains("at most 4096"),
        "{status} {answer}"
    );
    let asked = Server::start("centre", &["--max-request-rows", "8"]);
    assert_eq!(asked.infer(&body(9)).await.0, 400);
}

/// The memory that ONNX Runtime takes for a large request is released; otherwise the largest
/// request so far would determine the memory of a pod.
#[tokio::test(flavor = "multi_thread")]
async fn memory_of_large_requests_comes_back() {
    const ROWS: usize = 8192;
    let server = Server::start(
        "wide",
        &["--workers", "1", "--max-request-rows", "10000", "--batching=disabled"],
    );
    let body = |rows: usize| json!({"inputs": [{"name": "x", "shape": [rows, 1], "datatype": "FP32", "data": vec![1.0; rows]}]});
    let before = server.memory();
    assert_eq!(server.infer(&body(ROWS)).await.0, 200);
    let taken = server.peak_memory() - before;
    assert!(taken > 100 << 20, "{taken} bytes for {ROWS} rows of 16 KiB");
    // The first run after a long one shrinks the arena.
    assert_eq!(server.infer(&body(1)).await.0, 200);
    let kept = server.memory().saturating_sub(before);
    assert!(kept < taken / 4, "{kept} of {taken} bytes are kept");
}
