//! The metadata of a model, and requests that are built from it.

use bytes::Bytes;
use serde_json::{Value, json};
use slipway_oip::inference::InferTensorContents;
use slipway_oip::inference::model_infer_request::InferInputTensor;

use crate::{Stop, ensure};

/// Datatypes of the protocol, and BF16, which some servers support.
const DATATYPES: [&str; 14] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "FP32", "FP64", "BYTES", "BF16",
];

/// A tensor in the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorMetadata {
    pub(crate) name: String,
    pub(crate) datatype: String,
    pub(crate) shape: Vec<i64>,
}

/// A model in the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelMetadata {
    pub(crate) name: String,
    pub(crate) versions: Vec<String>,
    pub(crate) inputs: Vec<TensorMetadata>,
    pub(crate) outputs: Vec<TensorMetadata>,
}

impl ModelMetadata {
    /// Parses metadata as specified.
    pub(crate) fn from_json(value: &Value) -> Result<Self, Stop> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = text("name").ok_or_else(|| Stop::Fail("no \"name\"".into()))?;
        ensure!(text("platform").is_some(), "no \"platform\"");
        let versions = match value.get("versions") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list
                .iter()
                .map(|v| {
                    v.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| Stop::Fail(format!("version {v} is not a string")))
                })
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(Stop::Fail(format!("versions is {other}, not an array"))),
        };
        Ok(Self {
            name,
            versions,
            inputs: read_tensors(value, "inputs")?,
            outputs: read_tensors(value, "outputs")?,
        })
    }

    /// Whether all inputs can be expressed in JSON and gRPC's typed fields.
    pub(crate) fn has_typed_form(&self) -> bool {
        self.inputs
            .iter()
            .chain(&self.outputs)
            .all(|s| !matches!(s.datatype.as_str(), "FP16" | "BF16"))
    }
}

fn read_tensors(value: &Value, key: &str) -> Result<Vec<TensorMetadata>, Stop> {
    let list = value
        .get(key)
        .and_then(Value::as_array)
        .ok_or_else(|| Stop::Fail(format!("{key:?} is not an array")))?;
    list.iter()
        .enumerate()
        .map(|(i, item)| {
            read_tensor(item).ok_or_else(|| Stop::Fail(format!("{key}[{i}] is {item}")))
        })
        .collect()
}

fn read_tensor(value: &Value) -> Option<TensorMetadata> {
    let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
    let shape =
        value.get("shape")?.as_array()?.iter().map(Value::as_i64).collect::<Option<Vec<_>>>()?;
    let datatype = text("datatype").filter(|d| DATATYPES.contains(&d.as_str()))?;
    shape.iter().all(|d| *d >= -1).then_some(TensorMetadata {
        name: text("name")?,
        datatype,
        shape,
    })
}

/// An input of ones.
#[derive(Debug, Clone)]
pub(crate) struct SampleInput<'a> {
    pub(crate) spec: &'a TensorMetadata,
    pub(crate) shape: Vec<i64>,
    pub(crate) count: usize,
}

impl<'a> SampleInput<'a> {
    /// One row; open dimensions are 1.
    pub(crate) fn for_tensor(spec: &'a TensorMetadata) -> Self {
        let shape: Vec<i64> = spec.shape.iter().map(|d| if *d < 0 { 1 } else { *d }).collect();
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        Self { spec, shape, count }
    }

    pub(crate) fn for_model(model: &'a ModelMetadata) -> Vec<Self> {
        model.inputs.iter().map(Self::for_tensor).collect()
    }

    fn element(&self) -> Value {
        match self.spec.datatype.as_str() {
            "BOOL" => json!(true),
            "BYTES" => json!("1"),
            "FP32" | "FP64" => json!(1.0),
            _ => json!(1),
        }
    }

    pub(crate) fn flat_data(&self) -> Value {
        Value::Array(vec![self.element(); self.count])
    }

    pub(crate) fn nested_data(&self) -> Value {
        self.shape.iter().rev().fold(self.element(), |inner, n| {
            Value::Array(vec![inner; usize::try_from(*n).unwrap_or(0)])
        })
    }

    /// The input with data in JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({"name": self.spec.name, "shape": self.shape, "datatype": self.spec.datatype, "data": self.flat_data()})
    }

    pub(crate) fn to_raw_bytes(&self) -> Bytes {
        let element: Vec<u8> = match self.spec.datatype.as_str() {
            "BOOL" | "UINT8" | "INT8" => vec![1],
            "UINT16" | "INT16" => vec![1, 0],
            "FP16" => 0x3c00_u16.to_le_bytes().to_vec(),
            "BF16" => 0x3f80_u16.to_le_bytes().to_vec(),
            "UINT32" | "INT32" => vec![1, 0, 0, 0],
            "FP32" => 1_f32.to_le_bytes().to_vec(),
            "FP64" => 1_f64.to_le_bytes().to_vec(),
            "BYTES" => vec![1, 0, 0, 0, b'1'],
            _ => 1_u64.to_le_bytes().to_vec(),
        };
        element.repeat(self.count).into()
    }

    /// The input for gRPC, with or without typed contents.
    pub(crate) fn to_grpc_input(&self, typed: bool) -> InferInputTensor {
        InferInputTensor {
            name: self.spec.name.clone(),
            datatype: self.spec.datatype.clone(),
            shape: self.shape.clone(),
            contents: typed.then(|| self.typed_contents()),
            ..Default::default()
        }
    }

    fn typed_contents(&self) -> InferTensorContents {
        let n = self.count;
        let mut c = InferTensorContents::default();
        match self.spec.datatype.as_str() {
            "BOOL" => c.bool_contents = vec![true; n],
            "UINT8" | "UINT16" | "UINT32" => c.uint_contents = vec![1; n],
            "UINT64" => c.uint64_contents = vec![1; n],
            "INT8" | "INT16" | "INT32" => c.int_contents = vec![1; n],
            "INT64" => c.int64_contents = vec![1; n],
            "FP32" => c.fp32_contents = vec![1.0; n],
            "FP64" => c.fp64_contents = vec![1.0; n],
            _ => c.bytes_contents = vec![b"1".to_vec(); n],
        }
        c
    }
}

/// A request of ones in JSON.
pub(crate) fn sample_request(model: &ModelMetadata) -> Value {
    json!({"inputs": SampleInput::for_model(model).iter().map(SampleInput::to_json).collect::<Vec<_>>()})
}

/// The values of an output's raw bytes, as JSON; `None` for datatypes that JSON cannot express.
pub(crate) fn raw_values(datatype: &str, bytes: &[u8]) -> Option<Vec<Value>> {
    macro_rules! fixed {
        ($ty:ty) => {
            bytes
                .chunks_exact(size_of::<$ty>())
                .map(|c| c.try_into().ok().map(|c| json!(<$ty>::from_le_bytes(c))))
                .collect()
        };
    }
    match datatype {
        "BOOL" => Some(bytes.iter().map(|b| json!(*b != 0)).collect()),
        "UINT8" => fixed!(u8),
        "UINT16" => fixed!(u16),
        "UINT32" => fixed!(u32),
        "UINT64" => fixed!(u64),
        "INT8" => fixed!(i8),
        "INT16" => fixed!(i16),
        "INT32" => fixed!(i32),
        "INT64" => fixed!(i64),
        "FP32" => fixed!(f32),
        "FP64" => fixed!(f64),
        "BYTES" => decode_strings(bytes),
        _ => None,
    }
}

fn decode_strings(mut bytes: &[u8]) -> Option<Vec<Value>> {
    let mut out = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (text, rest) =
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        out.push(json!(String::from_utf8_lossy(text)));
        bytes = rest;
    }
    bytes.is_empty().then_some(out)
}

/// The typed contents of an output, as JSON.
pub(crate) fn typed_values(c: &InferTensorContents) -> Vec<Value> {
    let mut out: Vec<Value> = c.bool_contents.iter().map(|v| json!(v)).collect();
    out.extend(c.int_contents.iter().map(|v| json!(v)));
    out.extend(c.int64_contents.iter().map(|v| json!(v)));
    out.extend(c.uint_contents.iter().map(|v| json!(v)));
    out.extend(c.uint64_contents.iter().map(|v| json!(v)));
    out.extend(c.fp32_contents.iter().map(|v| json!(v)));
    out.extend(c.fp64_contents.iter().map(|v| json!(v)));
    out.extend(c.bytes_contents.iter().map(|v| json!(String::from_utf8_lossy(v))));
    out
}

pub(crate) fn flatten_data(data: &Value, out: &mut Vec<Value>) {
    match data {
        Value::Array(items) => items.iter().for_each(|item| flatten_data(item, out)),
        other => out.push(other.clone()),
    }
}

/// Whether two lists of values are equal up to 1e-5.
pub(crate) fn values_match(a: &[Value], b: &[Value]) -> bool {
    let near = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-5 * a.abs().max(b.abs()).max(1.0),
        _ => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_one_form_in_each_encoding() {
        let spec = |datatype: &str| TensorMetadata {
            name: "x".into(),
            datatype: datatype.into(),
            shape: vec![-1, 3],
        };
        for datatype in DATATYPES.into_iter().filter(|d| !matches!(*d, "FP16" | "BF16")) {
            let spec = spec(datatype);
            let sample = SampleInput::for_tensor(&spec);
            let mut flat = Vec::new();
            flatten_data(&sample.nested_data(), &mut flat);
            assert_eq!(Value::Array(flat.clone()), sample.flat_data());
            assert!(
                values_match(&raw_values(datatype, &sample.to_raw_bytes()).unwrap(), &flat),
                "{datatype}"
            );
            assert!(values_match(&typed_values(&sample.typed_contents()), &flat), "{datatype}");
        }
    }
}
