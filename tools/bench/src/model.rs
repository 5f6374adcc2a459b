//! The models of the benchmarks, and a request for each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use prost::Message as _;
use serde_json::json;
use slipway_oip::inference::ModelInferRequest;
use slipway_oip::inference::model_infer_request::InferInputTensor;

use crate::load::BenchRequest;
use crate::venv;
use crate::wire::{InputRow, WireEncoding};

/// All models, by increasing work.
pub(crate) const NAMES: [&str; 5] = ["tree30", "mlp", "digits", "cnn", "cnn-wide"];

#[derive(Debug, Clone)]
pub(crate) struct BenchModel {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) row: InputRow,
    /// The output of raw ONNX Runtime for the row.
    pub(crate) probabilities: Vec<f32>,
}

/// Makes the models unless they exist.
pub(crate) fn ensure_models(dir: &Path, only: &[String]) -> anyhow::Result<Vec<BenchModel>> {
    let out = dir.join("models");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("models.py");
    if NAMES.iter().any(|name| !out.join(format!("{name}.json")).is_file()) {
        let requirements = std::fs::read_to_string(script.with_file_name("requirements.txt"))?;
        let venv = venv::ensure_venv(
            "models",
            "python3",
            &slipway_provision::python::parse_requirements(&requirements),
        )?;
        venv::run_command(Command::new(venv.join("bin/python")).arg(&script).arg(&out))?;
    }
    let wanted =
        NAMES.into_iter().filter(|name| only.is_empty() || only.iter().any(|it| it == name));
    wanted.map(|name| read_model(&out, name)).collect()
}

fn read_model(dir: &Path, name: &str) -> anyhow::Result<BenchModel> {
    let text = std::fs::read_to_string(dir.join(format!("{name}.json")))
        .context("the models are not made")?;
    let path = std::path::absolute(dir.join(format!("{name}.onnx")))?;
    Ok(BenchModel {
        name: name.into(),
        path,
        row: serde_json::from_str(&text)?,
        probabilities: Vec::new(),
    })
}

impl InputRow {
    fn raw_bytes(&self) -> Vec<u8> {
        self.data.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The request for model `model`.
    pub(crate) fn build_request(
        &self,
        port: u16,
        path: &str,
        model: &str,
        wire: WireEncoding,
    ) -> BenchRequest {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| {
            headers.insert(
                name,
                HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static("")),
            );
        };
        let head = |input: serde_json::Value| json!({"id": "1", "inputs": [input]});
        let mut input = json!({"name": self.input, "shape": self.shape, "datatype": "FP32"});
        let body = match wire {
            WireEncoding::Json => {
                put("content-type", "application/json");
                input["data"] = json!(self.data);
                head(input).to_string().into_bytes()
            }
            WireEncoding::Binary => {
                let raw = self.raw_bytes();
                input["parameters"] = json!({"binary_data_size": raw.len()});
                let mut whole = head(input);
                whole["parameters"] = json!({"binary_data_output": true});
                let mut body = whole.to_string().into_bytes();
                put("content-type", "application/octet-stream");
                put("inference-header-content-length", &body.len().to_string());
                body.extend(raw);
                body
            }
            WireEncoding::Grpc => {
                put("content-type", "application/grpc");
                put("te", "trailers");
                grpc_frame(&self.grpc_message(model))
            }
        };
        let grpc = wire == WireEncoding::Grpc;
        let path = if grpc { "/inference.GRPCInferenceService/ModelInfer" } else { path };
        BenchRequest {
            port,
            path: path.to_owned(),
            headers,
            body: Bytes::from(body),
            grpc,
            variation: None,
        }
    }

    /// A `ModelInferRequest` with raw contents.
    fn grpc_message(&self, model: &str) -> Vec<u8> {
        let input = InferInputTensor {
            name: self.input.clone(),
            datatype: "FP32".into(),
            shape: self.shape.clone(),
            ..InferInputTensor::default()
        };
        let request = ModelInferRequest {
            model_name: model.into(),
            id: "1".into(),
            inputs: vec![input],
            raw_input_contents: vec![self.raw_bytes().into()],
            ..ModelInferRequest::default()
        };
        request.encode_to_vec()
    }
}

/// A gRPC message: not compressed, length, bytes.
fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_the_encoding_says() {
        let row = InputRow { input: "x".into(), shape: vec![1, 300], data: vec![1.0] };
        // https://protobuf.dev/programming-guides/encoding/, encoded by hand.
        let input = [&[0x0a, 1, b'x', 0x12, 4][..], b"FP32", &[0x1a, 3, 1, 0xac, 0x02]].concat();
        let length = u8::try_from(input.len()).unwrap();
        let want = [
            &[0x0a, 1, b'm', 0x1a, 1, b'1', 0x2a, length][..],
            &input,
            &[0x3a, 4, 0, 0, 0x80, 0x3f],
        ]
        .concat();
        assert_eq!(row.grpc_message("m"), want);
        assert_eq!(grpc_frame(&want)[..5], [0, 0, 0, 0, u8::try_from(want.len()).unwrap()]);
    }
}
