//! A node as the rules of operators receive it, with queries about its inputs.

use super::size::{SymbolTable, SymbolicSize};
use super::value::SymbolicTensor;
use crate::graph::GraphNode;

/// A node with the known properties of its inputs.
pub(super) struct NodeCall<'a> {
    pub(super) node: &'a GraphNode,
    pub(super) inputs: Vec<Option<&'a SymbolicTensor>>,
    /// Version of the operator set of the node's domain.
    pub(super) version: i64,
    pub(super) symbols: &'a mut SymbolTable,
}

/// The outputs of an operator, or why nothing can be proven. The caller adds the name of the node
/// to the reason.
pub(super) type RuleResult = Result<Vec<SymbolicTensor>, String>;

impl NodeCall<'_> {
    pub(super) fn input(&self, number: usize) -> Option<&SymbolicTensor> {
        self.inputs.get(number).copied().flatten()
    }

    pub(super) fn required_input(&self, number: usize) -> Result<&SymbolicTensor, String> {
        self.input(number).ok_or_else(|| format!("its input {number} is missing"))
    }

    pub(super) fn input_shape(&self, number: usize) -> Result<Vec<SymbolicSize>, String> {
        self.required_input(number)?
            .shape
            .clone()
            .ok_or_else(|| format!("the shape of its input {number} is not known"))
    }

    /// The numbers of an input that is a constant list.
    pub(super) fn input_numbers(&self, number: usize) -> Option<Vec<i64>> {
        self.input(number)?.numbers()
    }

    /// Whether any input holds rows.
    pub(super) fn has_rows(&self) -> bool {
        self.inputs.iter().flatten().any(|tensor| tensor.has_row_axis())
    }

    /// Requires that all inputs except these are independent of the batch.
    pub(super) fn ensure_others_fixed(&self, but: &[usize]) -> Result<(), String> {
        for (number, tensor) in self.inputs.iter().enumerate() {
            let Some(tensor) = tensor.filter(|_| !but.contains(&number)) else { continue };
            if tensor.has_row_axis() {
                return Err(format!(
                    "its input {number} holds rows where it should be the same for all"
                ));
            }
            if tensor.batch_dependent {
                return Err(format!("its input {number} depends on the number of rows"));
            }
        }
        Ok(())
    }

    /// The outputs for inputs that hold no rows.
    pub(super) fn output_without_rows(
        &self,
        shape: Option<Vec<SymbolicSize>>,
    ) -> Vec<SymbolicTensor> {
        let counted = self.inputs.iter().flatten().any(|tensor| tensor.batch_dependent);
        self.repeat_output(SymbolicTensor {
            batch_dependent: counted,
            ..SymbolicTensor::batch_independent(shape)
        })
    }

    /// The tensor, once for each output of the node.
    pub(super) fn repeat_output(&self, tensor: SymbolicTensor) -> Vec<SymbolicTensor> {
        vec![tensor; self.node.outputs.len().max(1)]
    }

    /// An operator without a rule: outputs of inputs without rows have no rows either; with rows
    /// nothing is proven.
    pub(super) fn unknown_operator(&self) -> RuleResult {
        let inputs = || self.inputs.iter().flatten();
        if inputs().any(|tensor| tensor.has_row_axis()) {
            return Err("what this operator does with rows is not known".into());
        }
        let random = ["Random", "Bernoulli", "Multinomial"]
            .iter()
            .any(|name| self.node.op_type.starts_with(name));
        if random {
            return Err("its result is another one in each run".into());
        }
        let batch_dependent = inputs().any(|tensor| tensor.batch_dependent);
        Ok(vec![
            SymbolicTensor { batch_dependent, ..SymbolicTensor::batch_independent(None) };
            self.node.outputs.len()
        ])
    }
}
