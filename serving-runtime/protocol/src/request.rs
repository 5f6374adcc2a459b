//! Parses an inference request into tensors in the model's order.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use slipway_runtime_engine::batch::RequestPriority;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};
use slipway_runtime_engine::tensor::Tensor;

use crate::json::{parse_list, parse_part, without_nan};
use crate::parameters::ParameterMap;
use crate::select::{InputCollector, OutputSelector, check_dimensions, check_fp16_outputs};
use crate::{binary, data};

/// An output that the client requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its index in the signature.
    pub index: usize,
    /// Whether to send it as raw bytes.
    pub binary: bool,
}

/// A valid request.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    /// The request's id, returned in the answer.
    pub id: Option<String>,
    /// The timeout that the client set.
    pub timeout: Option<Duration>,
    /// The priority in the queue.
    pub priority: RequestPriority,
    /// Inputs in the signature's order.
    pub inputs: Vec<Tensor>,
    /// Outputs in the order of the request.
    pub outputs: Vec<RequestedOutput>,
}

#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow)]
    outputs: Option<&'a RawValue>,
}

/// The parts of a request without the values of its tensors.
#[derive(Deserialize)]
struct RequestParts<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow, default)]
    inputs: Option<Vec<JsonInput<'a>>>,
    #[serde(borrow, default)]
    outputs: Option<Vec<JsonOutput<'a>>>,
}

impl<'a> RequestParts<'a> {
    /// Parses part by part, so that the error names the faulty part.
    fn parse_by_part(json: &'a [u8]) -> Result<Self, PredictError> {
        let request: RawRequest<'_> = serde_json::from_slice(json).map_err(|e| {
            PredictError::invalid(format!("the body is not a JSON inference request: {e}"))
        })?;
        let RawRequest { id, parameters, inputs, outputs } = request;
        Ok(Self {
            id,
            parameters,
            inputs: parse_list(inputs, "inputs")?,
            outputs: parse_list(outputs, "outputs")?,
        })
    }
}

#[derive(Deserialize)]
struct JsonInput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct JsonOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

/// Parses a request body: `header_length` bytes of JSON (all of it when absent), then the raw
/// tensors.
pub fn parse_request(
    body: &[u8],
    header_length: Option<usize>,
    signature: &ModelSignature,
) -> Result<InferRequest, PredictError> {
    let length = header_length.unwrap_or(body.len());
    if header_length == Some(0) {
        return parse_raw_request(body, signature);
    }
    let (json, mut blobs) = body.split_at_checked(length).ok_or_else(|| {
        PredictError::invalid(format!(
            "Inference-Header-Content-Length is {length}, but the body has {} bytes",
            body.len()
        ))
    })?;
    // A valid request is parsed in a single pass.
    let mended;
    let request = match serde_json::from_slice(json) {
        Ok(parts) => parts,
        Err(_) => match without_nan(json) {
            Some(text) => {
                mended = text;
                RequestParts::parse_by_part(&mended)?
            }
            None => RequestParts::parse_by_part(json)?,
        },
    };
    let id = request.id.map(|raw| parse_part::<String>(raw, "id")).transpose()?;
    let parameters = ParameterMap::read(request.parameters, "request")?;
    let inputs = read_inputs(request.inputs.unwrap_or_default(), &mut blobs, signature)?;
    if !blobs.is_empty() {
        return Err(PredictError::invalid(format!(
            "{} bytes follow the last tensor; the binary_data_size of the inputs must add up to what follows the JSON",
            blobs.len()
        )));
    }
    let outputs = read_outputs(
        request.outputs.unwrap_or_default(),
        parameters.flag("binary_data_output")?.unwrap_or(false),
        signature,
    )?;
    let (timeout, priority) = (parameters.timeout()?, parameters.priority()?);
    Ok(InferRequest { id, timeout, priority, inputs, outputs })
}

fn read_inputs(
    list: Vec<JsonInput<'_>>,
    blobs: &mut &[u8],
    signature: &ModelSignature,
) -> Result<Vec<Tensor>, PredictError> {
    let mut inputs = InputCollector::new(signature);
    for (i, input) in list.into_iter().enumerate() {
        let path = format!("inputs[{i}]");
        let (at, spec) = inputs.locate(&path, &input.name)?;
        inputs.put(at, read_tensor(&input, &path, spec, blobs)?);
    }
    inputs.finish()
}

fn read_tensor(
    input: &JsonInput<'_>,
    path: &str,
    spec: &TensorSignature,
    blobs: &mut &[u8],
) -> Result<Tensor, PredictError> {
    let name = &spec.name;
    let (shape, count) = check_dimensions(spec, &input.datatype, &input.shape)?;
    let parameters = ParameterMap::read(input.parameters, path)?;
    parameters.refuse_input()?;
    let data = match (parameters.size("binary_data_size")?, input.data) {
        (Some(_), Some(_)) => {
            return Err(PredictError::invalid(format!(
                "input {name:?}: has both data and binary_data_size; send one of them"
            )));
        }
        (Some(size), None) => {
            let (blob, rest) = blobs.split_at_checked(size).ok_or_else(|| {
                PredictError::invalid(format!(
                    "input {name:?}: binary_data_size is {size}, but {} bytes are left",
                    blobs.len()
                ))
            })?;
            *blobs = rest;
            binary::decode_binary(blob, spec.datatype, count)
                .map_err(|e| PredictError::invalid(format!("input {name:?}: binary data {e}")))?
        }
        (None, Some(raw)) => data::parse_data(raw, spec.datatype, &shape, count)
            .map_err(|e| PredictError::invalid(format!("input {name:?}: {path}.data {e}")))?,
        (None, None) => {
            return Err(PredictError::invalid(format!(
                "input {name:?}: has neither data nor parameter binary_data_size"
            )));
        }
    };
    Ok(Tensor { shape, data })
}

fn read_outputs(
    list: Vec<JsonOutput<'_>>,
    binary: bool,
    signature: &ModelSignature,
) -> Result<Vec<RequestedOutput>, PredictError> {
    let mut outputs = OutputSelector::new(signature);
    for (i, output) in list.into_iter().enumerate() {
        let path = format!("outputs[{i}]");
        let parameters = ParameterMap::read(output.parameters, &path)?;
        outputs.select(&path, &output.name, parameters.flag("binary_data")?.unwrap_or(binary))?;
        parameters.refuse_output()?;
    }
    let wanted = outputs.finish(binary);
    check_fp16_outputs(&wanted, signature)?;
    Ok(wanted)
}

/// Parses a body that consists only of the bytes of the single input, with a batch of 1; the answer
/// is binary.
fn parse_raw_request(
    body: &[u8],
    signature: &ModelSignature,
) -> Result<InferRequest, PredictError> {
    let [spec] = signature.inputs.as_slice() else {
        return Err(PredictError::invalid(
            "a raw binary request needs a model with exactly one input; send a JSON header",
        ));
    };
    let mut shape: Vec<usize> =
        spec.shape.iter().enumerate().map(|(i, d)| d.unwrap_or(usize::from(i == 0))).collect();
    let open: Vec<usize> = (1..shape.len()).filter(|i| spec.shape[*i].is_none()).collect();
    let known = shape
        .iter()
        .filter(|d| **d != 0)
        .try_fold(1_usize, |n, d| n.checked_mul(*d))
        .unwrap_or(usize::MAX);
    match (open.as_slice(), spec.datatype.width()) {
        ([], _) => {}
        ([one], Some(width)) => shape[*one] = body.len() / width.saturating_mul(known).max(1),
        _ => {
            return Err(PredictError::invalid(
                "a raw binary request needs a shape with at most one open dimension; send a JSON header",
            ));
        }
    }
    if body.is_empty() {
        return Err(PredictError::invalid(
            "the body is empty; a raw binary request has at least one element",
        ));
    }
    spec.check_shape(&shape)?;
    let count = shape.iter().product();
    let data = binary::decode_binary(body, spec.datatype, count).map_err(|e| {
        PredictError::invalid(format!("input {:?}: the body {e} for shape {shape:?}", spec.name))
    })?;
    let outputs =
        (0..signature.outputs.len()).map(|index| RequestedOutput { index, binary: true }).collect();
    let inputs = vec![Tensor { shape, data }];
    Ok(InferRequest {
        id: None,
        timeout: None,
        priority: RequestPriority::default(),
        inputs,
        outputs,
    })
}
