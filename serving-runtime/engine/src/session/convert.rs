//! Converts between the types of ONNX Runtime and of this crate.

use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor as OrtTensor, TensorElementType, ValueType};

use crate::error::{LoadError, LoadErrorReason};
use crate::signature::{ModelSignature, TensorSignature};
use crate::tensor::{DataType, Tensor, TensorData};

pub(super) fn read_signature(session: &Session) -> Result<ModelSignature, LoadError> {
    let specs = |side: &str, outlets: &[Outlet]| {
        outlets.iter().map(|o| tensor_signature(side, o)).collect::<Result<Vec<_>, _>>()
    };
    let inputs = specs("input", session.inputs())?;
    let outputs = specs("output", session.outputs())?;
    Ok(ModelSignature { inputs, outputs })
}

fn tensor_signature(side: &str, outlet: &Outlet) -> Result<TensorSignature, LoadError> {
    let name = outlet.name();
    let invalid = |what: String| {
        LoadError::permanent(LoadErrorReason::InvalidModel, format!("{side} {name:?} {what}"))
    };
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(invalid(format!(
            "is a {}, not a tensor; convert the model with `zipmap=False` (skl2onnx: options={{id(model): {{'zipmap': False}}}})",
            outlet.dtype()
        )));
    };
    let datatype = from_element_type(*ty)
        .ok_or_else(|| invalid(format!("has elements of type {ty}, which we do not serve")))?;
    let dims: Vec<_> = shape.iter().map(|d| usize::try_from(*d).ok()).collect();
    let axis = match (dims.first(), dimension_symbols.first()) {
        (Some(None), Some(symbol)) if !symbol.is_empty() => Some(symbol.to_string()),
        _ => None,
    };
    Ok(TensorSignature { name: name.to_owned(), datatype, shape: dims, axis })
}

const fn from_element_type(ty: TensorElementType) -> Option<DataType> {
    Some(match ty {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::U8,
        TensorElementType::Uint16 => DataType::U16,
        TensorElementType::Uint32 => DataType::U32,
        TensorElementType::Uint64 => DataType::U64,
        TensorElementType::Int8 => DataType::I8,
        TensorElementType::Int16 => DataType::I16,
        TensorElementType::Int32 => DataType::I32,
        TensorElementType::Int64 => DataType::I64,
        TensorElementType::Float16 => DataType::F16,
        TensorElementType::Float32 => DataType::F32,
        TensorElementType::Float64 => DataType::F64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

pub(super) fn to_ort(tensor: Tensor) -> ort::Result<SessionInputValue<'static>> {
    let Tensor { shape, data } = tensor;
    macro_rules! convert {
        ($($variant:ident),*) => {
            match data {
                $(TensorData::$variant(v) => OrtTensor::from_array((shape, v))?.into(),)*
                TensorData::Bytes(v) => OrtTensor::from_string_array((shape, v.as_slice()))?.into(),
            }
        };
    }
    Ok(convert!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64))
}

pub(super) fn from_ort(value: &DynValue) -> ort::Result<Tensor> {
    let ty = value.dtype().tensor_type().and_then(from_element_type);
    let Some(ty) = ty else {
        return Err(ort::Error::new(format!("an output is a {}", value.dtype())));
    };
    macro_rules! convert {
        ($($variant:ident),*) => {
            match ty {
                $(DataType::$variant => {
                    let (shape, values) = value.try_extract_tensor()?;
                    (shape, TensorData::$variant(values.to_vec()))
                })*
                DataType::Bytes => {
                    let (shape, values) = value.try_extract_strings()?;
                    (shape, TensorData::Bytes(values))
                }
            }
        };
    }
    let (shape, data) = convert!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64);
    Ok(Tensor { shape: shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect(), data })
}
