//! Writing answers.

use serde::Serialize;
use serde_json::{Map, Value, json};
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::tensor::{Tensor, TensorData};

use crate::{InferRequest, binary};

/// The parameter of a JSON output with the number of elements that are written as `null`.
const NON_FINITE: &str = "non_finite_elements";

/// An encoded answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseBody {
    pub bytes: Vec<u8>,
    /// Length of the JSON part, when raw tensors follow it.
    pub header_length: Option<usize>,
}

#[derive(Serialize)]
struct ResponseEnvelope<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    outputs: Vec<ResponseOutput<'a>>,
}

#[derive(Serialize)]
struct ResponseOutput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonData<'a>>,
}

/// The values of a tensor as a flat array; `null` for a NaN or an infinity.
struct JsonData<'a>(&'a Tensor);

impl Serialize for JsonData<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0.data {
            TensorData::F16(v) => s.collect_seq(v.iter().map(|x| x.to_f32())),
            TensorData::Bool(v) => v.serialize(s),
            TensorData::U8(v) => v.serialize(s),
            TensorData::U16(v) => v.serialize(s),
            TensorData::U32(v) => v.serialize(s),
            TensorData::U64(v) => v.serialize(s),
            TensorData::I8(v) => v.serialize(s),
            TensorData::I16(v) => v.serialize(s),
            TensorData::I32(v) => v.serialize(s),
            TensorData::I64(v) => v.serialize(s),
            TensorData::F32(v) => v.serialize(s),
            TensorData::F64(v) => v.serialize(s),
            TensorData::Bytes(v) => v.serialize(s),
        }
    }
}

/// Number of elements of a tensor that are written as `null`, because JSON has no form for a NaN or
/// an infinity.
fn count_null_elements(data: &TensorData) -> Option<usize> {
    data.first_non_finite().map(|_| data.count_non_finite())
}

/// Encodes the answer to `request`; `outputs` are all outputs of the model in the signature's
/// order.
pub fn write_response(
    model: (&str, &str),
    signature: &ModelSignature,
    request: &InferRequest,
    outputs: &[Tensor],
    prediction_id: Option<&str>,
) -> Result<ResponseBody, PredictError> {
    let mut blobs = Vec::new();
    let mut listed = Vec::with_capacity(request.outputs.len());
    for wanted in &request.outputs {
        let (Some(spec), Some(tensor)) =
            (signature.outputs.get(wanted.index), outputs.get(wanted.index))
        else {
            return Err(PredictError::ModelFailed(
                "the model gave fewer outputs than it declares".into(),
            ));
        };
        let mut output = ResponseOutput {
            name: &spec.name,
            datatype: tensor.data.datatype().name(),
            shape: &tensor.shape,
            parameters: None,
            data: None,
        };
        if wanted.binary {
            let before = blobs.len();
            binary::encode_binary(&tensor.data, &mut blobs);
            output.parameters = Some(json!({"binary_data_size": blobs.len() - before}));
        } else {
            output.parameters =
                count_null_elements(&tensor.data).map(|count| json!({NON_FINITE: count}));
            output.data = Some(JsonData(tensor));
        }
        listed.push(output);
    }
    let any_binary = request.outputs.iter().any(|w| w.binary);
    let mut parameters = Map::new();
    if let Some(id) = prediction_id {
        parameters.insert("prediction_id".into(), id.into());
    }
    let envelope = ResponseEnvelope {
        model_name: model.0,
        model_version: model.1,
        id: request.id.as_deref(),
        parameters,
        outputs: listed,
    };
    let mut bytes =
        Vec::with_capacity(256 + outputs.iter().map(|t| t.data.len() * 8).sum::<usize>());
    serde_json::to_writer(&mut bytes, &envelope)
        .map_err(|e| PredictError::ModelFailed(e.to_string()))?;
    let header_length = any_binary.then_some(bytes.len());
    bytes.append(&mut blobs);
    Ok(ResponseBody { bytes, header_length })
}
