//! The graph of a model, without its weights: nodes, attributes, and those constants that are small
//! enough to be shapes or axes.

use std::collections::BTreeMap;

/// A model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxModel {
    /// Versions of operator sets by domain; `""` is that of ONNX itself.
    pub opsets: BTreeMap<String, i64>,
    /// The graph.
    pub graph: OnnxGraph,
    /// Functions of the model itself, by domain and name.
    pub functions: BTreeMap<(String, String), ModelFunction>,
}

/// A graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxGraph {
    /// Nodes in an order in which they can run.
    pub nodes: Vec<GraphNode>,
    /// Constants by name.
    pub constants: BTreeMap<String, ConstantTensor>,
    /// Inputs, those with a constant as default included.
    pub inputs: Vec<ValueInfo>,
    /// Outputs.
    pub outputs: Vec<ValueInfo>,
}

/// A function of the model's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFunction {
    /// Names of inputs.
    pub inputs: Vec<String>,
    /// Names of outputs.
    pub outputs: Vec<String>,
    /// Nodes in an order in which they can run.
    pub nodes: Vec<GraphNode>,
    /// Versions of operator sets by domain, where they are its own.
    pub opsets: BTreeMap<String, i64>,
    pub(crate) domain: String,
    pub(crate) name: String,
}

/// An operator with its inputs and outputs. An empty name is an optional one that is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphNode {
    /// Its name, for people.
    pub name: String,
    /// The operator.
    pub op_type: String,
    /// Its domain; empty for ONNX itself.
    pub domain: String,
    /// Names of inputs.
    pub inputs: Vec<String>,
    /// Names of outputs.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, NodeAttribute>,
}

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAttribute {
    /// A number.
    Integer(i64),
    /// A few numbers.
    Integers(Vec<i64>),
    /// A text.
    Text(String),
    /// A tensor.
    Constant(ConstantTensor),
    /// A graph.
    Graph(OnnxGraph),
    /// The attribute of this name of the function that the node is in.
    Reference(String),
    /// Anything else.
    Other,
}

/// A tensor that is part of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConstantTensor {
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its elements, when it holds a few integers.
    pub integers: Option<Vec<i64>>,
    /// Which of its elements are 1, when it holds a few floats.
    pub equals_one: Option<Vec<bool>>,
}

/// An input or output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// Its shape; `None` when the model says none, or it is no tensor.
    pub shape: Option<Vec<Dimension>>,
}

/// A dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// So many.
    Fixed(i64),
    /// Open, with a name: equal names are equal numbers.
    Named(String),
    /// Open.
    Open,
}

impl GraphNode {
    /// The node as messages name it: `Softmax "/block/attn/Softmax"`.
    pub fn label(&self) -> String {
        let name = if self.name.is_empty() {
            self.outputs.first().map_or("", String::as_str)
        } else {
            &self.name
        };
        format!("{} {name:?}", self.op_type)
    }

    /// A number among the attributes.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(NodeAttribute::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// A list of numbers among the attributes.
    pub fn integers(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(NodeAttribute::Integers(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// A text among the attributes.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(NodeAttribute::Text(text)) => Some(text),
            _ => None,
        }
    }
}
