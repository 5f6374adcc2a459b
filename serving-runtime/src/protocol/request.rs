//! Reading an inference request into tensors in the model's order.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{binary, data};
use crate::engine::{Signature, TensorSpec};
use crate::error::ApiError;
use crate::tensor::{DataType, Tensor};

/// An output that the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its place in the signature.
    pub index: usize,
    /// Whether to send it as raw bytes.
    pub binary: bool,
}

/// A valid request.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    /// To be echoed.
    pub id: Option<String>,
    /// The client's own time limit.
    pub timeout: Option<Duration>,
    /// Inputs in the signature's order.
    pub inputs: Vec<Tensor>,
    /// Outputs in the order asked for.
    pub outputs: Vec<Wanted>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow)]
    outputs: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Input<'a> {
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
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

/// serde_json's text without the position, which counts from the start of a part and would mislead.
pub(super) fn plain(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

fn part<'a, T: Deserialize<'a>>(raw: &'a RawValue, path: &str) -> Result<T, ApiError> {
    serde_json::from_str(raw.get()).map_err(|e| ApiError::bad(format!("{path}: {}", plain(&e))))
}

/// Reads a request body: `header_length` bytes of JSON (all of it when absent), then the raw tensors.
pub fn parse(body: &[u8], header_length: Option<usize>, signature: &Signature) -> Result<InferRequest, ApiError> {
    let length = header_length.unwrap_or(body.len());
    if header_length == Some(0) {
        return raw_request(body, signature);
    }
    let (json, mut blobs) = body.split_at_checked(length).ok_or_else(|| {
        ApiError::bad(format!("Inference-Header-Content-Length is {length}, but the body has {} bytes", body.len()))
    })?;
    let request: Request<'_> = serde_json::from_slice(json)
        .map_err(|e| ApiError::bad(format!("the body is not a JSON inference request: {e}")))?;
    let id = request.id.map(|raw| part::<String>(raw, "id")).transpose()?;
    let parameters = Parameters::read(request.parameters, "request")?;
    let inputs = inputs(request.inputs, &mut blobs, signature)?;
    if !blobs.is_empty() {
        return Err(ApiError::bad(format!(
            "{} bytes follow the last tensor; the binary_data_size of the inputs must add up to what follows the JSON",
            blobs.len()
        )));
    }
    let outputs = outputs(request.outputs, parameters.flag("binary_data_output")?.unwrap_or(false), signature)?;
    Ok(InferRequest { id, timeout: parameters.timeout()?, inputs, outputs })
}

fn inputs(raw: Option<&RawValue>, blobs: &mut &[u8], signature: &Signature) -> Result<Vec<Tensor>, ApiError> {
    let list: Vec<&RawValue> = raw.map(|r| part(r, "inputs")).transpose()?.unwrap_or_default();
    let mut found: Vec<Option<Tensor>> = vec![None; signature.inputs.len()];
    for (i, raw) in list.into_iter().enumerate() {
        let path = format!("inputs[{i}]");
        let input: Input<'_> = part(raw, &path)?;
        let Some(at) = signature.inputs.iter().position(|s| s.name == input.name) else {
            let names = Signature::names(&signature.inputs);
            return Err(ApiError::bad(format!("{path}: the model has no input {:?}; it has {names}", input.name)));
        };
        if found[at].is_some() {
            return Err(ApiError::bad(format!("{path}: input {:?} is given twice", input.name)));
        }
        found[at] = Some(tensor(&input, &path, &signature.inputs[at], blobs)?);
    }
    let missing: Vec<_> = signature
        .inputs
        .iter()
        .zip(&found)
        .filter(|(_, f)| f.is_none())
        .map(|(s, _)| format!("{:?}", s.name))
        .collect();
    if !missing.is_empty() {
        return Err(ApiError::bad(format!("inputs: missing {}", missing.join(", "))));
    }
    let inputs: Vec<Tensor> = found.into_iter().flatten().collect();
    signature.check_rows(&inputs)?;
    Ok(inputs)
}

fn tensor(input: &Input<'_>, path: &str, spec: &TensorSpec, blobs: &mut &[u8]) -> Result<Tensor, ApiError> {
    let name = &spec.name;
    if input.datatype != spec.datatype.name() {
        return Err(ApiError::bad(format!(
            "input {name:?}: datatype is {:?}; the model wants {}",
            input.datatype,
            spec.datatype.name()
        )));
    }
    let shape = input.shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<_>>>();
    let shape = shape.ok_or_else(|| {
        ApiError::bad(format!(
            "input {name:?}: shape {:?} has a negative dimension; send the actual sizes",
            input.shape
        ))
    })?;
    spec.check(&shape)?;
    let count = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    let count = count.ok_or_else(|| ApiError::bad(format!("input {name:?}: shape {shape:?} is too large")))?;
    let parameters = Parameters::read(input.parameters, path)?;
    parameters.refuse("shared_memory_region", "send the data in the request")?;
    let data = match (parameters.size("binary_data_size")?, input.data) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad(format!("input {name:?}: has both data and binary_data_size; send one of them")));
        }
        (Some(size), None) => {
            let (blob, rest) = blobs.split_at_checked(size).ok_or_else(|| {
                ApiError::bad(format!("input {name:?}: binary_data_size is {size}, but {} bytes are left", blobs.len()))
            })?;
            *blobs = rest;
            binary::read(blob, spec.datatype, count)
                .map_err(|e| ApiError::bad(format!("input {name:?}: binary data {e}")))?
        }
        (None, Some(raw)) => data::read(raw, spec.datatype, &shape, count)
            .map_err(|e| ApiError::bad(format!("input {name:?}: {path}.data {e}")))?,
        (None, None) => {
            return Err(ApiError::bad(format!("input {name:?}: has neither data nor parameter binary_data_size")));
        }
    };
    Ok(Tensor { shape, data })
}

fn outputs(raw: Option<&RawValue>, binary: bool, signature: &Signature) -> Result<Vec<Wanted>, ApiError> {
    let list: Vec<&RawValue> = raw.map(|r| part(r, "outputs")).transpose()?.unwrap_or_default();
    let mut wanted: Vec<Wanted> = Vec::new();
    for (i, raw) in list.into_iter().enumerate() {
        let path = format!("outputs[{i}]");
        let output: Output<'_> = part(raw, &path)?;
        let Some(index) = signature.outputs.iter().position(|s| s.name == output.name) else {
            let names = Signature::names(&signature.outputs);
            return Err(ApiError::bad(format!("{path}: the model has no output {:?}; it has {names}", output.name)));
        };
        if wanted.iter().any(|w| w.index == index) {
            return Err(ApiError::bad(format!("{path}: output {:?} is asked for twice", output.name)));
        }
        let parameters = Parameters::read(output.parameters, &path)?;
        parameters.refuse("shared_memory_region", "the data comes in the response")?;
        parameters.refuse("classification", "ask for the output itself")?;
        wanted.push(Wanted { index, binary: parameters.flag("binary_data")?.unwrap_or(binary) });
    }
    if wanted.is_empty() {
        wanted = (0..signature.outputs.len()).map(|index| Wanted { index, binary }).collect();
    }
    for w in &wanted {
        let spec = &signature.outputs[w.index];
        if spec.datatype == DataType::F16 && !w.binary {
            return Err(ApiError::bad(format!(
                "output {:?} is FP16, which has no form in JSON; ask for it with parameter binary_data or binary_data_output",
                spec.name
            )));
        }
    }
    Ok(wanted)
}

/// A body that is nothing but the one input's bytes, batch 1; answered in binary.
fn raw_request(body: &[u8], signature: &Signature) -> Result<InferRequest, ApiError> {
    let [spec] = signature.inputs.as_slice() else {
        return Err(ApiError::bad("a raw binary request needs a model with exactly one input; send a JSON header"));
    };
    let mut shape: Vec<usize> = spec.shape.iter().enumerate().map(|(i, d)| d.unwrap_or(usize::from(i == 0))).collect();
    let open: Vec<usize> = (1..shape.len()).filter(|i| spec.shape[*i].is_none()).collect();
    let known = shape.iter().filter(|d| **d != 0).try_fold(1_usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
    match (open.as_slice(), spec.datatype.width()) {
        ([], _) => {}
        ([one], Some(width)) => shape[*one] = body.len() / width.saturating_mul(known).max(1),
        _ => {
            return Err(ApiError::bad(
                "a raw binary request needs a shape with at most one open dimension; send a JSON header",
            ));
        }
    }
    spec.check(&shape)?;
    let count = shape.iter().product();
    let data = binary::read(body, spec.datatype, count)
        .map_err(|e| ApiError::bad(format!("input {:?}: the body {e} for shape {shape:?}", spec.name)))?;
    let outputs = (0..signature.outputs.len()).map(|index| Wanted { index, binary: true }).collect();
    Ok(InferRequest { id: None, timeout: None, inputs: vec![Tensor { shape, data }], outputs })
}

/// An object of parameters and where it stands.
struct Parameters<'p> {
    map: Option<Map<String, Value>>,
    path: &'p str,
}

impl<'p> Parameters<'p> {
    fn read(raw: Option<&RawValue>, path: &'p str) -> Result<Self, ApiError> {
        Ok(Self { map: raw.map(|r| part(r, &format!("{path}.parameters"))).transpose()?, path })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.map.as_ref()?.get(name)
    }

    fn wrong(&self, name: &str, want: &str) -> ApiError {
        ApiError::bad(format!("{}.parameters.{name} must be {want}", self.path))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.get(name).map(|v| v.as_bool().ok_or_else(|| self.wrong(name, "true or false"))).transpose()
    }

    fn size(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let size = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        self.get(name).map(|v| size(v).ok_or_else(|| self.wrong(name, "a number of bytes"))).transpose()
    }

    fn refuse(&self, name: &str, remedy: &str) -> Result<(), ApiError> {
        match self.get(name) {
            Some(_) => Err(ApiError::bad(format!("{}.parameters.{name} is not supported; {remedy}", self.path))),
            None => Ok(()),
        }
    }

    /// Microseconds, as in Triton; its clients send the number also as a string. 0 means none.
    fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let Some(value) = self.get("timeout") else { return Ok(None) };
        let micros = value.as_u64().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
        let micros = micros.ok_or_else(|| self.wrong("timeout", "a whole number of microseconds"))?;
        Ok((micros > 0).then(|| Duration::from_micros(micros)))
    }
}
