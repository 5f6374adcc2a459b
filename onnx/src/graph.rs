//! The graph of a model, without its weights: nodes, attributes, and the constants that are small
//! enough to be shapes or axes.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxModel {
    /// Versions of operator sets by domain; `""` is that of ONNX itself.
    pub opsets: BTreeMap<String, i64>,
    pub graph: OnnxGraph,
    /// Functions that the model defines, by domain and name.
    pub functions: BTreeMap<(String, String), ModelFunction>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxGraph {
    /// Nodes in topological order.
    pub nodes: Vec<GraphNode>,
    /// Constants by name.
    pub constants: BTreeMap<String, ConstantTensor>,
    /// Inputs, including those with a constant as default.
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
}

/// A function that the model defines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFunction {
    /// Names of inputs.
    pub inputs: Vec<String>,
    /// Names of outputs.
    pub outputs: Vec<String>,
    /// Nodes in topological order.
    pub nodes: Vec<GraphNode>,
    /// Versions of operator sets by domain, where they differ from the model's.
    pub opsets: BTreeMap<String, i64>,
    pub(crate) domain: String,
    pub(crate) name: String,
}

/// An operator with its inputs and outputs. An empty name stands for an omitted optional one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphNode {
    /// The name for messages; it may be empty.
    pub name: String,
    pub op_type: String,
    /// The domain of the operator; empty for ONNX itself.
    pub domain: String,
    /// Names of inputs.
    pub inputs: Vec<String>,
    /// Names of outputs.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, NodeAttribute>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAttribute {
    Integer(i64),
    /// A short list of numbers.
    Integers(Vec<i64>),
    Text(String),
    Constant(ConstantTensor),
    Graph(OnnxGraph),
    /// A reference to the attribute of this name of the function that contains the node.
    Reference(String),
    /// An attribute of another type.
    Other,
}

/// A tensor that is part of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConstantTensor {
    pub shape: Vec<i64>,
    /// The elements, if they are a short list of integers.
    pub integers: Option<Vec<i64>>,
    /// Which elements are 1, if they are a short list of floats.
    pub equals_one: Option<Vec<bool>>,
}

/// An input or output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValueInfo {
    pub name: String,
    /// The shape; `None` when the model declares none, or it is not a tensor.
    pub shape: Option<Vec<Dimension>>,
}

/// A dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// A fixed size.
    Fixed(i64),
    /// An open size with a name: equal names mean equal sizes.
    Named(String),
    /// An open size.
    Open,
}

impl GraphNode {
    /// The label of the node in messages: `Softmax "/block/attn/Softmax"`.
    pub fn label(&self) -> String {
        let name = if self.name.is_empty() {
            self.outputs.first().map_or("", String::as_str)
        } else {
            &self.name
        };
        format!("{} {name:?}", self.op_type)
    }

    /// The integer attribute with this name.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(NodeAttribute::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// The attribute with this name that is a list of integers.
    pub fn integers(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(NodeAttribute::Integers(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// The text attribute with this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(NodeAttribute::Text(text)) => Some(text),
            _ => None,
        }
    }
}
