//! A node as the rules of operators see it, and what they ask of it.

use super::size::{SymbolTable, SymbolicSize};
use super::value::SymbolicTensor;
use crate::graph::GraphNode;

/// A node with what is known of its inputs.
pub(super) struct NodeCall<'a> {
    pub(super) node: &'a GraphNode,
    pub(super) inputs: Vec<Option<&'a SymbolicTensor>>,
    /// Version of the operator set of the node's domain.
    pub(super) version: i64,
    pub(super) symbols: &'a mut SymbolTable,
}

/// What an operator makes, or why nothing is proven of it. The name of the node is added to the
/// reason.
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

    /// Whether rows are among the inputs.
    pub(super) fn has_rows(&self) -> bool {
        self.inputs.iter().flatten().any(|tensor| tensor.has_row_axis())
    }

    /// All inputs but those of these numbers must be the same whatever the batch is.
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

    /// What is made of inputs that hold no rows.
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

    /// As many results as the node has outputs.
    pub(super) fn repeat_output(&self, tensor: SymbolicTensor) -> Vec<SymbolicTensor> {
        vec![tensor; self.node.outputs.len().max(1)]
    }

    /// An operator without a rule: what it makes of tensors without rows has none either.
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
