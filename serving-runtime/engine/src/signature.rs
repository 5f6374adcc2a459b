//! The inputs and outputs of a model, and whether rows of several requests can be merged.

use crate::error::PredictError;
use crate::tensor::{DataType, Tensor};

/// The largest accepted product of the other dimensions when one dimension of a shape is 0.
const MAX_EMPTY_PRODUCT: usize = 1 << 20;

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSignature {
    pub name: String,
    pub datatype: DataType,
    /// The declared shape; `None` is a dimension that the model leaves open. Empty also when the
    /// model declares no shape.
    pub shape: Vec<Option<usize>>,
    /// The model's name for the first dimension, if that is open and named.
    pub axis: Option<String>,
}

impl TensorSignature {
    /// The shape in the protocol's notation: -1 for an open dimension.
    pub fn wire_shape(&self) -> Vec<i64> {
        self.shape.iter().map(|d| d.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX))).collect()
    }

    /// Checks the shape of a request's tensor.
    pub fn check_shape(&self, shape: &[usize]) -> Result<(), PredictError> {
        let name = &self.name;
        let want = self.wire_shape();
        // A request for a shape without elements costs the client nothing, but the model may
        // allocate memory for the other dimensions.
        let size = || {
            shape.iter().try_fold(1_usize, |size, dimension| size.checked_mul((*dimension).max(1)))
        };
        if shape.contains(&0) && size().is_none_or(|size| size > MAX_EMPTY_PRODUCT) {
            return Err(PredictError::invalid(format!(
                "input {name:?}: shape {shape:?} has no elements, and its other dimensions multiply to more than {MAX_EMPTY_PRODUCT}"
            )));
        }
        if self.shape.is_empty() {
            return Ok(());
        }
        if shape.len() != self.shape.len() {
            return Err(PredictError::invalid(format!(
                "input {name:?}: shape {shape:?} has {} dimensions; the model wants {} as in {want:?}",
                shape.len(),
                want.len()
            )));
        }
        for (axis, (got, want_dim)) in shape.iter().zip(&self.shape).enumerate() {
            if let Some(n) = want_dim.filter(|n| n != got) {
                return Err(PredictError::invalid(format!(
                    "input {name:?}: dimension {axis} of shape {shape:?} must be {n}; the model wants {want:?}"
                )));
            }
        }
        Ok(())
    }

    /// Zeros of a valid shape, with `rows` for the first open dimension and 1 for the others.
    pub fn sample_tensor(&self, rows: usize) -> Tensor {
        let shape = self
            .shape
            .iter()
            .enumerate()
            .map(|(i, d)| d.unwrap_or(if i == 0 { rows } else { 1 }))
            .collect();
        Tensor::zeros(self.datatype, shape)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSignature {
    /// Inputs in the model's order.
    pub inputs: Vec<TensorSignature>,
    /// Outputs in the model's order.
    pub outputs: Vec<TensorSignature>,
}

impl ModelSignature {
    /// Whether the first axis looks like a batch axis: open and of the same name on every input,
    /// and every output has a first axis. The warm-up then verifies it with two rows, because
    /// converters declare shapes wrongly (LightGBM's label is `{1}`).
    pub fn may_batch(&self) -> bool {
        let Some(first) = self.inputs.first() else { return false };
        let open = |s: &TensorSignature| s.shape.first() == Some(&None);
        self.inputs.iter().all(|s| open(s) && s.axis == first.axis)
            && self.outputs.iter().all(|s| !s.shape.is_empty())
    }

    /// Number of rows of a request: the first dimension of the first input if the model leaves it
    /// open, else 1; 0 when the input has no elements.
    pub fn rows(&self, inputs: &[Tensor]) -> usize {
        match (self.inputs.first(), inputs.first()) {
            (_, Some(tensor)) if tensor.data.is_empty() => 0,
            (Some(spec), Some(tensor)) if spec.shape.first() == Some(&None) => tensor.rows(),
            _ => 1,
        }
    }

    /// Checks that inputs whose first dimensions have the same name in the model have equally many
    /// rows. ONNX Runtime would detect a difference only in the middle of the graph and report an
    /// internal error.
    pub fn check_rows(&self, inputs: &[Tensor]) -> Result<(), PredictError> {
        let named = self
            .inputs
            .iter()
            .zip(inputs)
            .filter_map(|(s, t)| Some((s.axis.as_deref()?, &s.name, t.rows())));
        let named: Vec<_> = named.collect();
        for (axis, name, rows) in &named {
            if let Some((_, other, others)) = named.iter().find(|(a, _, n)| a == axis && n != rows)
            {
                return Err(PredictError::invalid(format!(
                    "input {name:?} has {rows} rows and input {other:?} has {others}; the model wants equally many ({axis})"
                )));
            }
        }
        Ok(())
    }

    /// Names for error messages: `"a", "b"`.
    pub fn quoted_names(specs: &[TensorSignature]) -> String {
        specs.iter().map(|s| format!("{:?}", s.name)).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[i64], axis: Option<&str>) -> TensorSignature {
        let shape = shape.iter().map(|d| usize::try_from(*d).ok()).collect();
        TensorSignature {
            name: name.into(),
            datatype: DataType::F32,
            shape,
            axis: axis.map(Into::into),
        }
    }

    #[test]
    fn shapes_are_checked_and_the_remedy_named() {
        let s = spec("x", &[-1, 4], None);
        assert!(s.check_shape(&[7, 4]).is_ok());
        let text = s.check_shape(&[7, 3]).unwrap_err().to_string();
        assert_eq!(
            text,
            "input \"x\": dimension 1 of shape [7, 3] must be 4; the model wants [-1, 4]"
        );
        assert!(s.check_shape(&[4]).unwrap_err().to_string().contains("has 1 dimensions"));
        assert!(s.check_shape(&[0, 4]).is_ok());
        assert!(s.check_shape(&[3, 0]).is_err(), "the model does not leave it open");
        let open = spec("any", &[-1, -1], None);
        assert!(open.check_shape(&[1 << 20, 0]).is_ok());
        assert!(
            open.check_shape(&[(1 << 20) + 1, 0]).unwrap_err().to_string().contains("no elements")
        );
        assert!(open.check_shape(&[usize::MAX, 0]).is_err());
        assert!(spec("any", &[], None).check_shape(&[3, 3, 3]).is_ok());
        assert_eq!(s.sample_tensor(3).shape, [3, 4]);
        assert_eq!(spec("y", &[2, -1], None).sample_tensor(3).shape, [2, 1]);
    }

    #[test]
    fn rows_of_one_name_must_agree() {
        let inputs = vec![
            spec("a", &[-1, 2], Some("N")),
            spec("b", &[-1], Some("N")),
            spec("c", &[-1], Some("M")),
            spec("d", &[-1], None),
        ];
        let signature = ModelSignature { inputs, outputs: vec![] };
        let tensors = |rows: [usize; 4]| rows.map(|n| Tensor::zeros(DataType::F32, vec![n, 1]));
        assert!(signature.check_rows(&tensors([3, 3, 1, 2])).is_ok());
        let text = signature.check_rows(&tensors([3, 2, 1, 1])).unwrap_err().to_string();
        assert!(text.contains("\"a\" has 3 rows") && text.contains("\"b\" has 2"), "{text}");
    }

    #[test]
    fn a_batch_axis_needs_every_input_and_output() {
        let out = spec("y", &[-1], None);
        let sig = |inputs: Vec<TensorSignature>, outputs| ModelSignature { inputs, outputs };
        assert!(sig(vec![spec("a", &[-1, 2], Some("N"))], vec![out.clone()]).may_batch());
        assert!(!sig(vec![spec("a", &[1, 2], None)], vec![out.clone()]).may_batch());
        assert!(
            !sig(
                vec![spec("a", &[-1, 2], Some("N")), spec("b", &[-1], Some("M"))],
                vec![out.clone()]
            )
            .may_batch()
        );
        assert!(!sig(vec![spec("a", &[-1, 2], None)], vec![spec("s", &[], None)]).may_batch());
        assert!(!sig(vec![], vec![out]).may_batch());
    }
}
