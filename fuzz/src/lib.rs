//! Fuzz targets of the decoders of untrusted input, with properties that must hold for every input.
//!
//! A target accepts any bytes. It panics when a property is violated: a decoder panics or uses far
//! more memory than its input has bytes, an accepted request does not fit the model, or two forms
//! of one request are decoded to different tensors. `make fuzz` runs the targets with libFuzzer;
//! the tests replay the corpus that it found.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a target reports")]

pub mod seeds;
mod signatures;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message as _;
use serde_json::Value;
pub use signatures::signature;
use slipway_egress::AllowList;
use slipway_gateway_feedback::item::FeedbackRequest;
use slipway_oip::inference::ModelInferRequest;
use slipway_prediction_id::{MAX_ROWS, PredictionIdSealer, PredictionReport, is_revision};
use slipway_runtime_cache::key::CacheKey;
use slipway_runtime_cache::value;
use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::tensor::Tensor;
use slipway_runtime_protocol::{InferRequest, RequestedOutput, grpc};
use slipway_runtime_queue::job::{self, QueuedJob};

/// A target; returns whether the input was accepted.
pub type Target = fn(&[u8]) -> bool;

/// All targets by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("rest", rest),
    ("binary", binary),
    ("grpc", grpc_message),
    ("queue", queue),
    ("state", state),
    ("onnx", onnx),
];

/// Bytes that tensors may take for each byte of a request: an empty string is three bytes of JSON
/// and a `String` of 24.
const MAX_GROWTH: usize = 32;

/// `POST /v2/models/{m}/infer` in JSON. The first byte selects the model.
pub fn rest(data: &[u8]) -> bool {
    let Some((model, body)) = data.split_first() else { return false };
    read(body, None, &signature(*model))
}

/// The same with binary tensors: a model, two bytes of header length (all ones: none), the body.
pub fn binary(data: &[u8]) -> bool {
    let [model, high, low, body @ ..] = data else { return false };
    let length = u16::from_be_bytes([*high, *low]);
    read(body, (length != u16::MAX).then_some(usize::from(length)), &signature(*model))
}

/// A `ModelInferRequest`. The first byte selects the model.
pub fn grpc_message(data: &[u8]) -> bool {
    let Some((model, body)) = data.split_first() else { return false };
    let Ok(message) = ModelInferRequest::decode(body) else { return false };
    let signature = signature(*model);
    assert!(
        grpc::payload_bytes(&message) <= MAX_GROWTH * body.len(),
        "a message that weighs more than it should"
    );
    let Ok(request) = grpc::parse_message(message, &signature) else { return false };
    accepted(&request, body.len(), &signature);
    true
}

/// An entry of the queue: the job, and the request in it. The first byte selects the model.
pub fn queue(data: &[u8]) -> bool {
    let Some((model, payload)) = data.split_first() else { return false };
    let Ok(job) = QueuedJob::parse(payload, 1 << 20) else { return false };
    assert!(job.id.is_empty() || job::is_valid_id(&job.id));
    assert_eq!(job.key_digest().is_empty(), job.idempotency_key.is_none());
    let _ = job.expires_at(1);
    // Encoding and decoding again gives the same job.
    let again = QueuedJob::parse(&serde_json::to_vec(&job).expect("a job has a form"), usize::MAX)
        .expect("our own form");
    assert_eq!(job.fingerprint(), again.fingerprint());
    if let Some(url) = &job.callback_url {
        let rules = ["example.org", ".example.com"].map(|rule| rule.parse().expect("a rule"));
        if let Ok(url) = AllowList::new(&rules).check_url(url) {
            let host = url.host_str().expect("a host");
            let host = host.strip_suffix('.').unwrap_or(host);
            assert!(
                host == "example.org" || host.ends_with(".example.com"),
                "{url} is not allowed"
            );
            assert!(url.username().is_empty() && url.password().is_none(), "{url} has a user");
        }
    }
    read(job.data.get().as_bytes(), None, &signature(*model))
}

/// A sealer with the key of the seeds.
fn sealer() -> Option<PredictionIdSealer> {
    PredictionIdSealer::new(&[7; 32])
}

/// Data that returns from outside: cached answers, prediction ids, labels.
pub fn state(data: &[u8]) -> bool {
    let key = CacheKey([7; 32]);
    if let Some((expires, outputs)) = value::decode_value(&key, data) {
        let bytes: usize = outputs.iter().map(Tensor::bytes).sum();
        assert!(bytes <= MAX_GROWTH * data.len(), "{bytes} bytes out of {}", data.len());
        let again = value::decode_value(&key, &value::encode_value(&key, expires, &outputs))
            .expect("our own form");
        assert_eq!(written(&again.1), written(&outputs));
        return true;
    }
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let sealer = sealer();
    if let Some(id) = sealer.as_ref().and_then(|sealer| sealer.open(text).ok()) {
        assert!(is_revision(&id.revision) && id.labels.len() <= MAX_ROWS);
        return true;
    }
    if let Some(report) = PredictionReport::decode(text) {
        assert_eq!(PredictionReport::decode(&report.encode()), Some(report));
        return true;
    }
    serde_json::from_str::<FeedbackRequest>(text).is_ok()
}

/// A model file.
pub fn onnx(data: &[u8]) -> bool {
    // Tests run in parallel in one process.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path =
        std::env::temp_dir().join(format!("slipway-fuzz-{}-{number}.onnx", std::process::id()));
    std::fs::File::create(&path).and_then(|mut file| file.write_all(data)).expect("a file");
    let found = slipway_onnx::check_model(&path);
    if let Ok(model) = slipway_onnx::read_model(&path) {
        // The proof terminates for every graph.
        let _ = slipway_onnx::independence::prove_row_independence(&model);
    }
    let _ = std::fs::remove_file(&path);
    found.is_ok()
}

fn read(body: &[u8], header_length: Option<usize>, signature: &ModelSignature) -> bool {
    let Ok(request) = slipway_runtime_protocol::parse_request(body, header_length, signature)
    else {
        return false;
    };
    accepted(&request, body.len(), signature);
    true
}

/// Checks that an accepted request fits the model, needs a bounded amount of memory, and decodes to
/// the same tensors in its other form.
fn accepted(request: &InferRequest, length: usize, signature: &ModelSignature) {
    assert_eq!(request.inputs.len(), signature.inputs.len());
    for (tensor, spec) in request.inputs.iter().zip(&signature.inputs) {
        spec.check_shape(&tensor.shape).expect("a shape that fits");
        assert_eq!(tensor.data.datatype(), spec.datatype);
        assert_eq!(
            Some(tensor.data.len()),
            tensor.shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))
        );
    }
    let bytes: usize = request.inputs.iter().map(Tensor::bytes).sum();
    assert!(bytes <= MAX_GROWTH * length, "{bytes} bytes out of {length}");
    assert!(request.outputs.iter().all(|wanted| wanted.index < signature.outputs.len()));
    let first = echo(&request.inputs, signature);
    let again = slipway_runtime_protocol::parse_request(&first.0, Some(first.1), signature)
        .expect("our own form of what was accepted");
    assert_eq!(echo(&again.inputs, signature), first, "one request, read as different tensors");
}

/// The binary request of `inputs`, built as the answer of a model that returns its inputs.
fn echo(inputs: &[Tensor], signature: &ModelSignature) -> (Vec<u8>, usize) {
    let mirror =
        ModelSignature { inputs: signature.inputs.clone(), outputs: signature.inputs.clone() };
    let outputs = (0..inputs.len()).map(|index| RequestedOutput { index, binary: true }).collect();
    let request = InferRequest {
        id: None,
        timeout: None,
        priority: Default::default(),
        inputs: Vec::new(),
        outputs,
    };
    let body =
        slipway_runtime_protocol::write_response(("m", "1"), &mirror, &request, inputs, None)
            .expect("an answer");
    let (json, blobs) = body.bytes.split_at(body.header_length.unwrap_or(body.bytes.len()));
    let mut head: Value = serde_json::from_slice(json).expect("JSON");
    let head = serde_json::json!({ "inputs": head["outputs"].take(), "parameters": { "binary_data_output": true } })
        .to_string();
    ([head.as_bytes(), blobs].concat(), head.len())
}

fn written(outputs: &[Tensor]) -> Vec<u8> {
    value::encode_value(&CacheKey([7; 32]), 0, outputs)
}
