//! Initial inputs: one of each kind that is accepted.

use base64::Engine as _;
use prost::Message as _;
use serde_json::{Value, json};
use slipway_oip::inference::model_infer_request::InferInputTensor;
use slipway_oip::inference::{InferTensorContents, ModelInferRequest};
use slipway_prediction_id::{PredictedLabel, PredictionReport};
use slipway_runtime_cache::key::CacheKey;
use slipway_runtime_cache::value;
use slipway_runtime_engine::tensor::{Tensor, TensorData};

fn with(model: u8, rest: &[u8]) -> Vec<u8> {
    [&[model], rest].concat()
}

fn bodies() -> Vec<(u8, Value)> {
    let input = |name: &str, datatype: &str, shape: &[i64], data: Value| json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
    let every = [
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32",
        "FP64", "BYTES",
    ]
    .map(|name| {
        let data = match name {
            "BOOL" => json!([true, false]),
            "BYTES" => json!(["a", "\u{e9}\n"]),
            "FP32" | "FP64" => json!([1.5e-3, -0.0]),
            _ => json!([0, 127]),
        };
        input(name, name, &[2], data)
    });
    vec![
        (
            0,
            json!({"id": "1", "inputs": [input("x", "FP32", &[1, 4], json!([1, 2.5, -3e2, 0]))], "parameters": {"timeout": 1000, "priority": 1}}),
        ),
        (
            0,
            json!({"inputs": [input("x", "FP32", &[2, 4], json!([[1, 2, 3, 4], [5, 6, 7, 8]]))], "outputs": [{"name": "label", "parameters": {"binary_data": true}}]}),
        ),
        (1, json!({"inputs": every})),
        (2, json!({"inputs": [input("text", "BYTES", &[3], json!(["", "\"\\\u{1f600}", "x"]))]})),
        (
            3,
            json!({"inputs": [input("b", "FP64", &[1, 1, 2], json!([[[1e308, 5e-324]]])), input("a", "INT64", &[2, 3], json!([1, -2, 9_007_199_254_740_993_i64, 4, 5, i64::MIN]))]}),
        ),
    ]
}

fn binary() -> Vec<Vec<u8>> {
    let request = |model: u8, input: Value, raw: &[u8]| {
        let head =
            json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
        let length = u16::try_from(head.len()).unwrap().to_be_bytes();
        with(model, &[&length, head.as_bytes(), raw].concat())
    };
    let input = |name: &str, datatype: &str, shape: &[i64], size: usize| json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}});
    vec![
        request(0, input("x", "FP32", &[1, 4], 16), &[0; 16]),
        request(2, input("text", "BYTES", &[2], 10), &[1, 0, 0, 0, b'a', 1, 0, 0, 0, b'b']),
        request(4, input("half", "FP16", &[1, 2], 4), &[0, 0x3c, 0, 0xbc]),
        // Only the tensor.
        with(0, &[&[0, 0][..], &[0; 16]].concat()),
    ]
}

fn grpc() -> Vec<Vec<u8>> {
    let input = |contents: Option<InferTensorContents>| InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 4],
        contents,
        ..Default::default()
    };
    let typed =
        InferTensorContents { fp32_contents: vec![1.0, 2.0, 3.0, f32::NAN], ..Default::default() };
    let message = |input, raw_input_contents: Vec<Vec<u8>>| ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input],
        raw_input_contents: raw_input_contents.into_iter().map(Into::into).collect(),
        ..Default::default()
    };
    let messages =
        [message(input(Some(typed)), Vec::new()), message(input(None), vec![vec![0; 16]])];
    messages.iter().map(|it| with(0, &it.encode_to_vec())).collect()
}

fn queue() -> Vec<Vec<u8>> {
    let (model, data) = bodies().swap_remove(0);
    let jobs = [
        json!({"model": "m", "data": data}),
        json!({"id": "a-1", "model_id": "m", "version": "latest", "data": data, "callback_url": "https://a.example.com/x?y=1",
            "idempotency_key": "k", "priority": "high", "ttl_seconds": 60, "created_at": 1_795_515_278_022_u64}),
    ];
    jobs.iter().map(|job| with(model, job.to_string().as_bytes())).collect()
}

fn state() -> Vec<Vec<u8>> {
    let outputs = [
        Tensor { shape: vec![1, 2], data: TensorData::F32(vec![0.25, 0.75]) },
        Tensor { shape: vec![1], data: TensorData::Bytes(vec!["yes".into()]) },
    ];
    let report = PredictionReport {
        sample: 7,
        labels: vec![
            Some(PredictedLabel::Number(3)),
            None,
            Some(PredictedLabel::Text("cat".into())),
        ],
    };
    let id = super::sealer()
        .and_then(|sealer| sealer.seal("a1b2c3", 1_795_515_278, &report))
        .unwrap_or_default();
    let feedback = json!({"feedback": [{"prediction_id": id, "labels": [1, null]}]});
    let texts = [id, report.encode(), feedback.to_string()].map(String::into_bytes);
    std::iter::once(value::encode_value(&CacheKey([7; 32]), 1, &outputs)).chain(texts).collect()
}

fn onnx() -> Vec<Vec<u8>> {
    // model { ir_version: 8, graph { node { op_type: "Relu", attribute { t { data_type: 1, dims: 1,
    // raw_data: 4 bytes } } } initializer {…} } }
    let tensor = [&[0x08, 1, 0x10, 1, 0x4a, 4][..], &[0; 4]].concat();
    let attribute = [&[0x2a, 10][..], &tensor].concat();
    let node = [&[0x22, 4][..], b"Relu", &[0x2a, 12], &attribute].concat();
    let graph = [&[0x0a, 20][..], &node, &[0x2a, 10], &tensor].concat();
    vec![[&[0x08, 8, 0x3a, 34][..], &graph].concat()]
}

/// The seeds of a target; none for an unknown target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "rest" => {
            bodies().iter().map(|(model, body)| with(*model, body.to_string().as_bytes())).collect()
        }
        "binary" => binary(),
        "grpc" => grpc(),
        "queue" => queue(),
        "state" => state(),
        "onnx" => onnx(),
        _ => Vec::new(),
    }
}

/// The inputs of a corpus: base64, one per line.
pub fn unpack(lines: &str) -> Vec<Vec<u8>> {
    let engine = base64::engine::general_purpose::STANDARD;
    lines.lines().map(|line| engine.decode(line).expect("a line of base64")).collect()
}
