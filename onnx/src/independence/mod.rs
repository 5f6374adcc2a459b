//! Proves that a model treats the rows of a batch independently: each row of its outputs depends
//! only on the same row of its inputs, so rows of different requests may be run together.
//!
//! The batch axis is followed from the inputs through every operator. An unsupported operator ends
//! the proof without success, as does an operator that mixes rows. A proven property holds for
//! every input; an unproven one may still hold. The rules follow the operators' specifications
//! (onnx.ai/onnx/operators).

mod elementwise;
mod gather;
mod ml;
mod movement;
mod network;
mod node_call;
mod product;
mod reduction;
mod reshape;
mod rules;
mod size;
mod value;

use std::collections::BTreeMap;

use node_call::NodeCall;
use size::{SymbolTable, SymbolicSize};
use value::SymbolicTensor;

use crate::graph::{
    ConstantTensor, Dimension, GraphNode, ModelFunction, NodeAttribute, OnnxGraph, OnnxModel,
};

/// Largest depth of functions that call functions.
const MAX_CALLS: usize = 16;
/// Largest number of visited nodes; nodes of a function count once for each call.
const MAX_STEPS: usize = 1_000_000;

/// Proves that rows are independent.
///
/// # Errors
/// Why it cannot be proven, as a text for the owner of the model.
pub fn prove_row_independence(model: &OnnxModel) -> Result<(), String> {
    let mut walk = GraphWalk { model, symbols: SymbolTable::default(), steps: 0, call_depth: 0 };
    let mut known = walk.declare_inputs()?;
    walk.visit_graph(&model.graph, &model.opsets, &mut known)?;
    for output in &model.graph.outputs {
        let name = &output.name;
        let tensor = known.get(name).ok_or_else(|| format!("nothing makes the output {name:?}"))?;
        let size = tensor.shape.as_ref().and_then(|shape| shape.first());
        let rows_first = tensor.row_axis == Some(0)
            && tensor.repeats.is_none()
            && size.is_some_and(SymbolicSize::is_row_count);
        if !rows_first {
            return Err(match tensor.row_axis {
                Some(0) => {
                    format!("the output {name:?} does not follow the rows of the inputs one by one")
                }
                Some(axis) => {
                    format!(
                        "the rows of the output {name:?} are not along its first axis, but along axis {axis}"
                    )
                }
                None => format!("the output {name:?} does not follow the rows of the inputs"),
            });
        }
    }
    Ok(())
}

/// The known tensors by name.
type KnownTensors = BTreeMap<String, SymbolicTensor>;
/// Versions of operator sets by domain.
type OpsetVersions = BTreeMap<String, i64>;

struct GraphWalk<'a> {
    model: &'a OnnxModel,
    symbols: SymbolTable,
    steps: usize,
    call_depth: usize,
}

impl GraphWalk<'_> {
    /// Declares the first axis of every input as that of the batch.
    fn declare_inputs(&mut self) -> Result<KnownTensors, String> {
        let mut known = KnownTensors::new();
        let mut batch_name: Option<&str> = None;
        let graph = &self.model.graph;
        let declared =
            graph.inputs.iter().filter(|input| !graph.constants.contains_key(&input.name));
        for (number, input) in declared.enumerate() {
            let name = &input.name;
            let shape = input
                .shape
                .as_ref()
                .ok_or_else(|| format!("the input {name:?} declares no shape"))?;
            let first = match shape.first() {
                Some(Dimension::Named(axis)) => Some(axis.as_str()),
                Some(Dimension::Open) => None,
                Some(Dimension::Fixed(_)) | None => {
                    return Err(format!("the first axis of the input {name:?} is not open"));
                }
            };
            if number > 0 && first != batch_name {
                return Err(format!(
                    "the first axis of the input {name:?} has another name than that of other inputs"
                ));
            }
            batch_name = first;
            let rest = shape[1..].iter().map(|dimension| match dimension {
                Dimension::Fixed(number) => Ok(SymbolicSize::from_number(*number)),
                Dimension::Named(axis) if Some(axis.as_str()) == first => Err(format!(
                    "the batch axis {axis:?} stands twice in the shape of the input {name:?}"
                )),
                Dimension::Named(axis) => Ok(self.symbols.named_size(axis)),
                Dimension::Open => Ok(self.symbols.fresh_size()),
            });
            let shape = std::iter::once(Ok(SymbolicSize::row_count()))
                .chain(rest)
                .collect::<Result<_, _>>()?;
            known.insert(name.clone(), SymbolicTensor::with_row_axis(shape, 0));
        }
        Ok(known)
    }

    fn visit_graph(
        &mut self,
        graph: &OnnxGraph,
        opsets: &OpsetVersions,
        known: &mut KnownTensors,
    ) -> Result<(), String> {
        for (name, constant) in &graph.constants {
            known.insert(name.clone(), constant_tensor(constant));
        }
        self.visit_nodes(&graph.nodes, opsets, known)
    }

    fn visit_nodes(
        &mut self,
        nodes: &[GraphNode],
        opsets: &OpsetVersions,
        known: &mut KnownTensors,
    ) -> Result<(), String> {
        for node in nodes {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!("the model has more than {MAX_STEPS} nodes"));
            }
            let made = self.visit_node(node, opsets, known)?;
            for (name, tensor) in node.outputs.iter().zip(made) {
                if !name.is_empty() {
                    known.insert(name.clone(), tensor);
                }
            }
        }
        Ok(())
    }

    fn visit_node(
        &mut self,
        node: &GraphNode,
        opsets: &OpsetVersions,
        known: &KnownTensors,
    ) -> Result<Vec<SymbolicTensor>, String> {
        let key = (node.domain.clone(), node.op_type.clone());
        if let Some(function) = self.model.functions.get(&key) {
            return self.visit_function(function, node, opsets, known);
        }
        if node.attributes.values().any(|attribute| matches!(attribute, NodeAttribute::Graph(_))) {
            return self.visit_subgraphs(node, opsets, known);
        }
        let find = |name: &String| {
            let missing = || format!("nothing makes {name:?}, which {} takes", node.label());
            if name.is_empty() { Ok(None) } else { known.get(name).map(Some).ok_or_else(missing) }
        };
        let inputs = node.inputs.iter().map(find).collect::<Result<Vec<_>, String>>()?;
        let version = opsets.get(&node.domain).copied().unwrap_or(1);
        let mut call = NodeCall { node, inputs, version, symbols: &mut self.symbols };
        let made = call.apply().map_err(|reason| format!("{}: {reason}", node.label()))?;
        Ok(made)
    }

    /// Visits the nodes of a function as if they replaced its call.
    fn visit_function(
        &mut self,
        function: &ModelFunction,
        call: &GraphNode,
        opsets: &OpsetVersions,
        known: &KnownTensors,
    ) -> Result<Vec<SymbolicTensor>, String> {
        if self.call_depth >= MAX_CALLS {
            return Err(format!("functions call one another more than {MAX_CALLS} deep"));
        }
        let mut inside = KnownTensors::new();
        for (name, given) in function.inputs.iter().zip(&call.inputs) {
            if let Some(tensor) = known.get(given) {
                inside.insert(name.clone(), tensor.clone());
            }
        }
        let nodes: Vec<GraphNode> =
            function.nodes.iter().map(|node| bind_attributes(node, call)).collect();
        let opsets = if function.opsets.is_empty() { opsets } else { &function.opsets };
        self.call_depth += 1;
        let done = self.visit_nodes(&nodes, opsets, &mut inside);
        self.call_depth -= 1;
        done?;
        let made = function.outputs.iter().map(|name| {
            inside
                .get(name)
                .cloned()
                .ok_or_else(|| format!("nothing makes {name:?} in the function {}", call.op_type))
        });
        made.collect()
    }

    /// Visits the graphs in a node's attributes, which can use every tensor of the surrounding
    /// graph.
    fn visit_subgraphs(
        &mut self,
        node: &GraphNode,
        opsets: &OpsetVersions,
        known: &KnownTensors,
    ) -> Result<Vec<SymbolicTensor>, String> {
        let graphs: Vec<&OnnxGraph> = node
            .attributes
            .values()
            .filter_map(|attribute| {
                if let NodeAttribute::Graph(graph) = attribute { Some(graph) } else { None }
            })
            .collect();
        let given = |name: &String| known.get(name);
        if node.op_type == "If" && node.domain.is_empty() {
            let condition = node.inputs.first().and_then(given);
            if condition.is_none_or(|it| it.has_row_axis() || it.batch_dependent) {
                return Err(format!("{}: its condition depends on the rows", node.label()));
            }
            let branches = graphs
                .iter()
                .map(|graph| self.visit_branch(graph, opsets, known))
                .collect::<Result<Vec<_>, _>>()?;
            return self.join_branches(node, &branches);
        }
        let seen = graphs
            .iter()
            .flat_map(|graph| referenced_names(graph))
            .filter_map(|name| known.get(name));
        let free = node
            .inputs
            .iter()
            .filter_map(given)
            .chain(seen)
            .all(|tensor| !tensor.has_row_axis() && !tensor.batch_dependent);
        if free {
            return Ok(vec![SymbolicTensor::batch_independent(None); node.outputs.len()]);
        }
        Err(format!("{}: what it does with rows is not followed", node.label()))
    }

    fn visit_branch(
        &mut self,
        graph: &OnnxGraph,
        opsets: &OpsetVersions,
        known: &KnownTensors,
    ) -> Result<Vec<SymbolicTensor>, String> {
        let mut inside = known.clone();
        self.visit_graph(graph, opsets, &mut inside)?;
        let made = graph.outputs.iter().map(|output| {
            inside
                .get(&output.name)
                .cloned()
                .ok_or_else(|| format!("nothing makes {:?} in a branch", output.name))
        });
        made.collect()
    }

    /// The properties that hold whichever branch is taken.
    fn join_branches(
        &mut self,
        node: &GraphNode,
        branches: &[Vec<SymbolicTensor>],
    ) -> Result<Vec<SymbolicTensor>, String> {
        let [one, other] = branches else {
            return Err(format!("{}: it has no two branches", node.label()));
        };
        let both = one.iter().zip(other).map(|(one, other)| {
            if one == other {
                return Ok(one.clone());
            }
            if (one.row_axis, &one.repeats) != (other.row_axis, &other.repeats)
                || one.batch_dependent
                || other.batch_dependent
            {
                return Err(format!(
                    "{}: its branches differ in what they do with rows",
                    node.label()
                ));
            }
            let Some(axis) = one.row_axis else {
                return Ok(SymbolicTensor::batch_independent(None));
            };
            let (Some(these), Some(those)) = (&one.shape, &other.shape) else {
                return Ok(SymbolicTensor::batch_independent(None));
            };
            if these.len() != those.len() || these[axis] != those[axis] {
                return Err(format!("{}: its branches give different shapes", node.label()));
            }
            let shape = these
                .iter()
                .zip(those)
                .map(|(a, b)| if a == b { a.clone() } else { self.symbols.fresh_size() });
            Ok(SymbolicTensor {
                repeats: one.repeats.clone(),
                ..SymbolicTensor::with_row_axis(shape.collect(), axis)
            })
        });
        both.collect()
    }
}

/// Names of all tensors that a graph uses, its own and those of the surrounding graph.
fn referenced_names(graph: &OnnxGraph) -> Vec<&String> {
    let mut all: Vec<&String> = graph.outputs.iter().map(|output| &output.name).collect();
    for node in &graph.nodes {
        all.extend(&node.inputs);
        for attribute in node.attributes.values() {
            if let NodeAttribute::Graph(inner) = attribute {
                all.extend(referenced_names(inner));
            }
        }
    }
    all
}

/// A node of a function, with the attributes that the call of the function provides.
fn bind_attributes(node: &GraphNode, call: &GraphNode) -> GraphNode {
    let mut node = node.clone();
    let given = |attribute: &NodeAttribute| match attribute {
        NodeAttribute::Reference(name) => call.attributes.get(name).cloned(),
        other => Some(other.clone()),
    };
    node.attributes =
        node.attributes.iter().filter_map(|(name, it)| Some((name.clone(), given(it)?))).collect();
    node
}

fn constant_tensor(constant: &ConstantTensor) -> SymbolicTensor {
    let shape = constant.shape.iter().map(|size| SymbolicSize::from_number(*size)).collect();
    let elements = constant.integers.as_ref().filter(|_| constant.shape.len() <= 1);
    let elements = elements.map(|numbers| {
        numbers.iter().map(|number| Some(SymbolicSize::from_number(*number))).collect()
    });
    SymbolicTensor {
        elements,
        equals_one: constant.equals_one.clone(),
        ..SymbolicTensor::batch_independent(Some(shape))
    }
}

#[cfg(test)]
mod tests;
