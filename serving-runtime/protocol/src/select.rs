//! Selects the inputs and outputs of a model that a request names, for all protocols.

use slipway_runtime_engine::error::PredictError;
use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};
use slipway_runtime_engine::tensor::{DataType, Tensor};

use crate::RequestedOutput;

/// Collects the inputs of a request in the signature's order.
pub(crate) struct InputCollector<'s> {
    signature: &'s ModelSignature,
    tensors: Vec<Option<Tensor>>,
}

impl<'s> InputCollector<'s> {
    pub(crate) fn new(signature: &'s ModelSignature) -> Self {
        Self { signature, tensors: vec![None; signature.inputs.len()] }
    }

    /// The index and the specification of an input that was not given before.
    pub(crate) fn locate(
        &self,
        path: &str,
        name: &str,
    ) -> Result<(usize, &'s TensorSignature), PredictError> {
        let Some(at) = self.signature.inputs.iter().position(|s| s.name == name) else {
            let names = ModelSignature::quoted_names(&self.signature.inputs);
            return Err(PredictError::invalid(format!(
                "{path}: the model has no input {name:?}; it has {names}"
            )));
        };
        if self.tensors[at].is_some() {
            return Err(PredictError::invalid(format!("{path}: input {name:?} is given twice")));
        }
        Ok((at, &self.signature.inputs[at]))
    }

    pub(crate) fn put(&mut self, at: usize, tensor: Tensor) {
        self.tensors[at] = Some(tensor);
    }

    /// All inputs; an error when one is missing.
    pub(crate) fn finish(self) -> Result<Vec<Tensor>, PredictError> {
        let named = self.signature.inputs.iter().zip(&self.tensors);
        let missing: Vec<_> =
            named.filter(|(_, f)| f.is_none()).map(|(s, _)| format!("{:?}", s.name)).collect();
        if !missing.is_empty() {
            return Err(PredictError::invalid(format!("inputs: missing {}", missing.join(", "))));
        }
        let inputs: Vec<Tensor> = self.tensors.into_iter().flatten().collect();
        self.signature.check_rows(&inputs)?;
        Ok(inputs)
    }
}

/// Checks an input's datatype and shape; returns the shape and the number of its elements.
pub(crate) fn check_dimensions(
    spec: &TensorSignature,
    datatype: &str,
    shape: &[i64],
) -> Result<(Vec<usize>, usize), PredictError> {
    let name = &spec.name;
    if datatype != spec.datatype.name() {
        return Err(PredictError::invalid(format!(
            "input {name:?}: datatype is {datatype:?}; the model wants {}",
            spec.datatype.name()
        )));
    }
    let dims = shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<_>>>();
    let dims = dims.ok_or_else(|| {
        PredictError::invalid(format!(
            "input {name:?}: shape {shape:?} has a negative dimension; send the actual sizes"
        ))
    })?;
    spec.check_shape(&dims)?;
    let count = dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    let count = count.ok_or_else(|| {
        PredictError::invalid(format!("input {name:?}: shape {dims:?} is too large"))
    })?;
    Ok((dims, count))
}

/// Collects the outputs that a request names.
pub(crate) struct OutputSelector<'s> {
    signature: &'s ModelSignature,
    wanted: Vec<RequestedOutput>,
}

impl<'s> OutputSelector<'s> {
    pub(crate) fn new(signature: &'s ModelSignature) -> Self {
        Self { signature, wanted: Vec::new() }
    }

    pub(crate) fn select(
        &mut self,
        path: &str,
        name: &str,
        binary: bool,
    ) -> Result<(), PredictError> {
        let Some(index) = self.signature.outputs.iter().position(|s| s.name == name) else {
            let names = ModelSignature::quoted_names(&self.signature.outputs);
            return Err(PredictError::invalid(format!(
                "{path}: the model has no output {name:?}; it has {names}"
            )));
        };
        if self.wanted.iter().any(|w| w.index == index) {
            return Err(PredictError::invalid(format!(
                "{path}: output {name:?} is asked for twice"
            )));
        }
        self.wanted.push(RequestedOutput { index, binary });
        Ok(())
    }

    /// The requested outputs; all outputs when the request names none.
    pub(crate) fn finish(mut self, binary: bool) -> Vec<RequestedOutput> {
        if self.wanted.is_empty() {
            self.wanted = (0..self.signature.outputs.len())
                .map(|index| RequestedOutput { index, binary })
                .collect();
        }
        self.wanted
    }
}

/// Rejects FP16 outputs in JSON, which has no form for them.
pub(crate) fn check_fp16_outputs(
    wanted: &[RequestedOutput],
    signature: &ModelSignature,
) -> Result<(), PredictError> {
    for spec in wanted.iter().filter(|w| !w.binary).filter_map(|w| signature.outputs.get(w.index)) {
        if spec.datatype == DataType::F16 {
            return Err(PredictError::invalid(format!(
                "output {:?} is FP16, which has no form in JSON; ask for it with parameter binary_data or binary_data_output",
                spec.name
            )));
        }
    }
    Ok(())
}
