//! Converts gRPC messages to tensors and back.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Map, Value};
use slipway_oip::inference::infer_parameter::ParameterChoice;
use slipway_oip::inference::model_infer_request::InferInputTensor;
use slipway_oip::inference::model_infer_response::InferOutputTensor;
use slipway_oip::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};
use slipway_runtime_engine::tensor::{DataType, Tensor, TensorData};

use crate::parameters::ParameterMap;
use crate::select::{InputCollector, OutputSelector, check_dimensions};
use crate::{InferRequest, binary};

/// Approximate size of a request's tensors in bytes.
pub fn payload_bytes(request: &ModelInferRequest) -> usize {
    let raw: usize = request.raw_input_contents.iter().map(Bytes::len).sum();
    let typed = request.inputs.iter().filter_map(|input| input.contents.as_ref());
    raw + typed.map(|c| count_elements(c) * 4).sum::<usize>()
}

fn count_elements(c: &InferTensorContents) -> usize {
    c.bool_contents.len()
        + c.int_contents.len()
        + c.int64_contents.len()
        + c.uint_contents.len()
        + c.uint64_contents.len()
        + c.fp32_contents.len()
        + c.fp64_contents.len()
        + c.bytes_contents.len()
}

/// Parses a request.
///
/// # Errors
/// `Invalid`, naming the part and the remedy.
pub fn parse_message(
    request: ModelInferRequest,
    signature: &ModelSignature,
) -> Result<InferRequest, PredictError> {
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        return Err(PredictError::invalid(format!(
            "raw_input_contents has {} items for {} inputs; send one for each input, in their order, or none",
            raw.len(),
            request.inputs.len()
        )));
    }
    let parameters = ParameterMap::new(parameter_values(request.parameters), "request");
    let mut inputs = InputCollector::new(signature);
    let mut blobs = raw.iter();
    for (i, input) in request.inputs.into_iter().enumerate() {
        let path = format!("inputs[{i}]");
        let (at, spec) = inputs.locate(&path, &input.name)?;
        inputs.put(at, parse_tensor(input, &path, spec, blobs.next())?);
    }
    let inputs = inputs.finish()?;
    let as_raw = !raw.is_empty();
    let mut outputs = OutputSelector::new(signature);
    for (i, output) in request.outputs.into_iter().enumerate() {
        let path = format!("outputs[{i}]");
        outputs.select(&path, &output.name, as_raw)?;
        ParameterMap::new(parameter_values(output.parameters), &path).refuse_output()?;
    }
    let mut outputs = outputs.finish(as_raw);
    // FP16 has no typed form, and an answer is either raw as a whole or not at all.
    let half =
        |index: usize| signature.outputs.get(index).is_some_and(|s| s.datatype == DataType::F16);
    if outputs.iter().any(|w| half(w.index)) {
        outputs.iter_mut().for_each(|w| w.binary = true);
    }
    let id = (!request.id.is_empty()).then_some(request.id);
    Ok(InferRequest {
        id,
        timeout: parameters.timeout()?,
        priority: parameters.priority()?,
        inputs,
        outputs,
    })
}

fn parameter_values(map: HashMap<String, InferParameter>) -> Map<String, Value> {
    let value = |p: InferParameter| match p.parameter_choice {
        Some(ParameterChoice::BoolParam(v)) => Value::from(v),
        Some(ParameterChoice::Int64Param(v)) => Value::from(v),
        Some(ParameterChoice::Uint64Param(v)) => Value::from(v),
        Some(ParameterChoice::DoubleParam(v)) => Value::from(v),
        Some(ParameterChoice::StringParam(v)) => Value::from(v),
        None => Value::Null,
    };
    map.into_iter().map(|(name, p)| (name, value(p))).collect()
}

fn parse_tensor(
    input: InferInputTensor,
    path: &str,
    spec: &TensorSignature,
    blob: Option<&Bytes>,
) -> Result<Tensor, PredictError> {
    let name = &spec.name;
    let (shape, count) = check_dimensions(spec, &input.datatype, &input.shape)?;
    ParameterMap::new(parameter_values(input.parameters), path).refuse_input()?;
    let bad = |what: String| PredictError::invalid(format!("input {name:?}: {what}"));
    let contents = input.contents.filter(|c| count_elements(c) > 0);
    let data = match (blob, contents) {
        (Some(_), Some(_)) => {
            return Err(bad("has contents beside raw_input_contents; send one of them".into()));
        }
        (Some(blob), None) => binary::decode_binary(blob, spec.datatype, count)
            .map_err(|e| bad(format!("raw_input_contents {e}")))?,
        (None, contents) => {
            typed_data(contents.unwrap_or_default(), spec.datatype, count).map_err(bad)?
        }
    };
    Ok(Tensor { shape, data })
}

/// The field of `contents` for a datatype.
const fn contents_field(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "bool_contents",
        DataType::I8 | DataType::I16 | DataType::I32 => "int_contents",
        DataType::I64 => "int64_contents",
        DataType::U8 | DataType::U16 | DataType::U32 => "uint_contents",
        DataType::U64 => "uint64_contents",
        DataType::F32 => "fp32_contents",
        DataType::F64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::F16 => "raw_input_contents",
    }
}

fn typed_data(
    c: InferTensorContents,
    datatype: DataType,
    count: usize,
) -> Result<TensorData, String> {
    if datatype == DataType::F16 {
        return Err("FP16 has no typed form; send it in raw_input_contents".into());
    }
    let all = count_elements(&c);
    let data = match datatype {
        DataType::Bool => TensorData::Bool(c.bool_contents),
        DataType::I8 => TensorData::I8(narrow_integers(c.int_contents, datatype)?),
        DataType::I16 => TensorData::I16(narrow_integers(c.int_contents, datatype)?),
        DataType::I32 => TensorData::I32(c.int_contents),
        DataType::I64 => TensorData::I64(c.int64_contents),
        DataType::U8 => TensorData::U8(narrow_integers(c.uint_contents, datatype)?),
        DataType::U16 => TensorData::U16(narrow_integers(c.uint_contents, datatype)?),
        DataType::U32 => TensorData::U32(c.uint_contents),
        DataType::U64 => TensorData::U64(c.uint64_contents),
        DataType::F32 => TensorData::F32(c.fp32_contents),
        DataType::F64 | DataType::F16 => TensorData::F64(c.fp64_contents),
        DataType::Bytes => TensorData::Bytes(utf8_strings(c.bytes_contents)?),
    };
    let field = contents_field(datatype);
    if data.len() != all {
        return Err(format!(
            "contents has values outside {field}, where {} belongs",
            datatype.name()
        ));
    }
    if data.len() != count {
        return Err(format!("{field} has {} elements; the shape needs {count}", data.len()));
    }
    Ok(data)
}

fn narrow_integers<W: Copy + std::fmt::Display, N: TryFrom<W>>(
    wide: Vec<W>,
    datatype: DataType,
) -> Result<Vec<N>, String> {
    let each = wide.into_iter().enumerate();
    each.map(|(i, v)| {
        N::try_from(v).map_err(|_| format!("element {i}: {v} is not {}", datatype.name()))
    })
    .collect()
}

fn utf8_strings(bytes: Vec<Vec<u8>>) -> Result<Vec<String>, String> {
    let each = bytes.into_iter().enumerate();
    each.map(|(i, b)| match String::from_utf8(b) {
        Ok(text) if text.contains('\0') => Err(format!("element {i} holds a zero byte")),
        Ok(text) => Ok(text),
        Err(_) => Err(format!("element {i} is not UTF-8, and ONNX strings must be")),
    })
    .collect()
}

/// Builds the answer to `request`; `outputs` are all outputs of the model in the signature's order,
/// `parameters` are added to the message.
///
/// # Errors
/// `ModelFailed` when the model returned fewer outputs than it declares.
pub fn write_message(
    model: (&str, &str),
    signature: &ModelSignature,
    request: InferRequest,
    outputs: Vec<Tensor>,
    parameters: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<ModelInferResponse, PredictError> {
    let mut tensors: Vec<Option<Tensor>> = outputs.into_iter().map(Some).collect();
    let parameter =
        |text| InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text)) };
    let mut response = ModelInferResponse {
        model_name: model.0.to_owned(),
        model_version: model.1.to_owned(),
        id: request.id.unwrap_or_default(),
        parameters: parameters
            .into_iter()
            .map(|(name, text)| (name.to_owned(), parameter(text)))
            .collect(),
        ..Default::default()
    };
    for wanted in &request.outputs {
        let tensor = tensors.get_mut(wanted.index).and_then(Option::take);
        let (Some(spec), Some(tensor)) = (signature.outputs.get(wanted.index), tensor) else {
            return Err(PredictError::ModelFailed(
                "the model gave fewer outputs than it declares".into(),
            ));
        };
        let mut output = InferOutputTensor {
            name: spec.name.clone(),
            datatype: tensor.data.datatype().name().to_owned(),
            shape: to_wire_shape(&tensor.shape),
            ..Default::default()
        };
        if wanted.binary {
            let mut blob =
                Vec::with_capacity(tensor.data.len() * tensor.data.datatype().width().unwrap_or(8));
            binary::encode_binary(&tensor.data, &mut blob);
            response.raw_output_contents.push(blob.into());
        } else {
            output.contents = Some(typed_contents(tensor.data));
        }
        response.outputs.push(output);
    }
    Ok(response)
}

/// Appends inputs to a request, in the form of its other inputs; raw when there are none.
pub fn append_inputs(
    request: &mut ModelInferRequest,
    specs: &[TensorSignature],
    tensors: Vec<Tensor>,
) {
    let raw = request.inputs.is_empty() || !request.raw_input_contents.is_empty();
    for (spec, tensor) in specs.iter().zip(tensors) {
        let contents = if raw {
            let mut blob = Vec::with_capacity(tensor.bytes());
            binary::encode_binary(&tensor.data, &mut blob);
            request.raw_input_contents.push(blob.into());
            None
        } else {
            Some(typed_contents(tensor.data))
        };
        request.inputs.push(InferInputTensor {
            name: spec.name.clone(),
            datatype: spec.datatype.name().to_owned(),
            shape: to_wire_shape(&tensor.shape),
            contents,
            ..Default::default()
        });
    }
}

fn to_wire_shape(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect()
}

fn typed_contents(data: TensorData) -> InferTensorContents {
    let mut c = InferTensorContents::default();
    match data {
        TensorData::Bool(v) => c.bool_contents = v,
        TensorData::I8(v) => c.int_contents = v.into_iter().map(i32::from).collect(),
        TensorData::I16(v) => c.int_contents = v.into_iter().map(i32::from).collect(),
        TensorData::I32(v) => c.int_contents = v,
        TensorData::I64(v) => c.int64_contents = v,
        TensorData::U8(v) => c.uint_contents = v.into_iter().map(u32::from).collect(),
        TensorData::U16(v) => c.uint_contents = v.into_iter().map(u32::from).collect(),
        TensorData::U32(v) => c.uint_contents = v,
        TensorData::U64(v) => c.uint64_contents = v,
        TensorData::F32(v) => c.fp32_contents = v,
        TensorData::F64(v) => c.fp64_contents = v,
        // Callers never use this form for FP16; the conversion keeps the values.
        TensorData::F16(v) => c.fp32_contents = v.into_iter().map(half::f16::to_f32).collect(),
        TensorData::Bytes(v) => c.bytes_contents = v.into_iter().map(String::into_bytes).collect(),
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> ModelSignature {
        let spec = |name: &str, datatype| TensorSignature {
            name: name.into(),
            datatype,
            shape: vec![None],
            axis: None,
        };
        ModelSignature {
            inputs: vec![spec("a", DataType::I8), spec("b", DataType::Bytes)],
            outputs: vec![spec("y", DataType::F32)],
        }
    }

    fn input(
        name: &str,
        datatype: &str,
        contents: Option<InferTensorContents>,
    ) -> InferInputTensor {
        InferInputTensor {
            name: name.into(),
            datatype: datatype.into(),
            shape: vec![2],
            contents,
            ..Default::default()
        }
    }

    fn ints(v: &[i32]) -> Option<InferTensorContents> {
        Some(InferTensorContents { int_contents: v.to_vec(), ..Default::default() })
    }

    fn texts(v: &[&[u8]]) -> Option<InferTensorContents> {
        Some(InferTensorContents {
            bytes_contents: v.iter().map(|b| b.to_vec()).collect(),
            ..Default::default()
        })
    }

    fn refusal(
        a: Option<InferTensorContents>,
        b: Option<InferTensorContents>,
        raw: Vec<Bytes>,
    ) -> String {
        let inputs = vec![input("a", "INT8", a), input("b", "BYTES", b)];
        let request = ModelInferRequest { inputs, raw_input_contents: raw, ..Default::default() };
        parse_message(request, &signature()).map_or_else(|e| e.to_string(), |_| "fine".into())
    }

    #[test]
    fn typed_and_raw_contents_are_checked() {
        let good = || texts(&[b"x", b""]);
        let raw = || {
            vec![Bytes::from_static(&[1, 2]), Bytes::from_static(&[1, 0, 0, 0, b'x', 0, 0, 0, 0])]
        };
        assert_eq!(refusal(ints(&[1, -2]), good(), vec![]), "fine");
        assert_eq!(refusal(None, None, raw()), "fine");
        for (text, part) in [
            (refusal(ints(&[1]), good(), vec![]), "int_contents has 1 elements; the shape needs 2"),
            (refusal(ints(&[1, 200]), good(), vec![]), "element 1: 200 is not INT8"),
            (refusal(good(), good(), vec![]), "values outside int_contents"),
            (refusal(None, good(), vec![]), "has 0 elements"),
            (refusal(ints(&[1, 2]), texts(&[b"x", b"\xff"]), vec![]), "element 1 is not UTF-8"),
            (refusal(ints(&[1, 2]), None, raw()), "send one of them"),
            (refusal(None, None, raw()[..1].to_vec()), "1 items for 2 inputs"),
            (refusal(None, None, vec![Bytes::from_static(&[1]), raw().remove(1)]), "has 1 bytes"),
        ] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }
}
