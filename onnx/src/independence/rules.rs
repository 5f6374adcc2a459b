//! Applies the rule of each operator, and checks the order of rows, which all rules preserve.

use super::node_call::{NodeCall, RuleResult};
use super::value::SymbolicTensor;
use super::{elementwise, gather, ml, movement, network, product, reduction, reshape};

impl NodeCall<'_> {
    /// Applies the operator's rule. Operators preserve the order of the rows along their axis; only
    /// those that change shapes need to examine it.
    pub(super) fn apply(&mut self) -> RuleResult {
        let order = |tensor: &SymbolicTensor| {
            let size = tensor
                .shape
                .as_ref()
                .zip(tensor.row_axis)
                .and_then(|(shape, axis)| shape.get(axis).cloned());
            (size, tensor.repeats.clone())
        };
        let mut orders = self
            .inputs
            .iter()
            .flatten()
            .filter(|tensor| tensor.has_row_axis())
            .map(|tensor| order(tensor));
        let first = orders.next();
        let Some((size, Some(repeats))) = first.clone() else {
            if orders.any(|(_, repeats)| repeats.is_some()) {
                return Err("it joins rows with rows in another order".into());
            }
            return self.apply_rule();
        };
        if orders.any(|other| Some(other) != first) {
            return Err("it joins rows with rows in another order".into());
        }
        let mut made = self.apply_rule()?;
        if ["Flatten", "Reshape"].contains(&self.node.op_type.as_str())
            && self.node.domain.is_empty()
        {
            return Ok(made);
        }
        for tensor in made.iter_mut().filter(|tensor| tensor.has_row_axis()) {
            if order(tensor).0 != size {
                return Err("what it does with rows in this order is not followed".into());
            }
            tensor.repeats = Some(repeats.clone());
        }
        Ok(made)
    }

    fn apply_rule(&mut self) -> RuleResult {
        let operator = self.node.op_type.as_str();
        if self.node.domain == "ai.onnx.ml" {
            return ml::apply_ml(self);
        }
        if !["", "com.microsoft"].contains(&self.node.domain.as_str()) {
            return self.unknown_operator();
        }
        let made = None
            .or_else(|| reshape::apply_reshape(self, operator))
            .or_else(|| movement::apply_movement(self, operator))
            .or_else(|| gather::apply_gather(self, operator))
            .or_else(|| reduction::apply_reduction(self, operator))
            .or_else(|| product::apply_product(self, operator))
            .or_else(|| network::apply_network(self, operator))
            .or_else(|| elementwise::apply_elementwise(self, operator));
        made.unwrap_or_else(|| self.unknown_operator())
    }
}
