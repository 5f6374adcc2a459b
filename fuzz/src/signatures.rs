//! Signatures of models of every kind that a request can be for.

use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};
use slipway_runtime_engine::tensor::DataType;

/// Number of signatures.
pub(crate) const COUNT: u8 = 5;

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSignature {
    let shape = shape.iter().map(|d| usize::try_from(*d).ok()).collect();
    TensorSignature { name: name.into(), datatype, shape, axis: None }
}

/// Signature number `model`, modulo the number of signatures.
pub fn signature(model: u8) -> ModelSignature {
    let scores = spec("probabilities", DataType::F32, &[-1, 3]);
    let label = spec("label", DataType::I64, &[-1]);
    let (inputs, outputs) = match model % COUNT {
        0 => (vec![spec("x", DataType::F32, &[-1, 4])], vec![label, scores]),
        1 => {
            let all = DataType::ALL.into_iter().filter(|it| *it != DataType::F16);
            (all.map(|it| spec(it.name(), it, &[-1])).collect(), vec![scores])
        }
        2 => (
            vec![spec("text", DataType::Bytes, &[-1])],
            vec![spec("label", DataType::Bytes, &[-1])],
        ),
        3 => (vec![spec("a", DataType::I64, &[2, 3]), spec("b", DataType::F64, &[])], vec![label]),
        _ => {
            (vec![spec("half", DataType::F16, &[-1, -1])], vec![spec("half", DataType::F16, &[-1])])
        }
    };
    ModelSignature { inputs, outputs }
}
