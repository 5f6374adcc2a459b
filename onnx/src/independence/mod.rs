//! Whether a model keeps the rows of a batch apart: whether each row of its outputs depends on the same row of its inputs alone, so that rows of
//! different requests may be run together.
//!
//! The batch axis is followed from the inputs through every operator. An operator that is not understood proves nothing, and neither does one that is
//! understood and mixes rows. What is proven holds for every input; what is not proven may still hold. The rules are those of the operators'
//! specifications (onnx.ai/onnx/operators).

mod elementwise;
mod gather;
mod ml;
mod movement;
mod network;
mod product;
mod reduction;
mod reshape;
mod size;
mod value;

use std::collections::BTreeMap;

use crate::graph::{Attribute, Constant, Dimension, Function, Graph, Model, Node};
use size::{Size, Symbols};
use value::Tensor;

/// Functions in functions in functions.
const MAX_CALLS: usize = 16;
/// Nodes that are looked at, those of functions once for each call.
const MAX_STEPS: usize = 1_000_000;

/// Shows that rows are kept apart.
///
/// # Errors
/// Why it cannot be shown, in words for the owner of the model.
pub fn prove(model: &Model) -> Result<(), String> {
    let mut walk = Walk { model, symbols: Symbols::default(), steps: 0, calls: 0 };
    let mut known = walk.inputs()?;
    walk.graph(&model.graph, &model.opsets, &mut known)?;
    for output in &model.graph.outputs {
        let name = &output.name;
        let tensor = known.get(name).ok_or_else(|| format!("nothing makes the output {name:?}"))?;
        let size = tensor.shape.as_ref().and_then(|shape| shape.first());
        let rows_first = tensor.axis == Some(0) && tensor.repeats.is_none() && size.is_some_and(Size::is_rows);
        if !rows_first {
            return Err(match tensor.axis {
                Some(0) => format!("the output {name:?} does not follow the rows of the inputs one by one"),
                Some(axis) => {
                    format!("the rows of the output {name:?} are not along its first axis, but along axis {axis}")
                }
                None => format!("the output {name:?} does not follow the rows of the inputs"),
            });
        }
    }
    Ok(())
}

/// What is known by the names of tensors.
type Known = BTreeMap<String, Tensor>;
/// Versions of operator sets by domain.
type Opsets = BTreeMap<String, i64>;

struct Walk<'a> {
    model: &'a Model,
    symbols: Symbols,
    steps: usize,
    calls: usize,
}

/// A node with what is known of its inputs.
struct Call<'a> {
    node: &'a Node,
    inputs: Vec<Option<&'a Tensor>>,
    /// Version of the operator set of the node's domain.
    version: i64,
    symbols: &'a mut Symbols,
}

/// What an operator makes, or why nothing is proven of it. The name of the node is added to the reason.
type Made = Result<Vec<Tensor>, String>;

impl Walk<'_> {
    /// The first axis of every input is that of the batch.
    fn inputs(&mut self) -> Result<Known, String> {
        let mut known = Known::new();
        let mut batch_name: Option<&str> = None;
        let graph = &self.model.graph;
        let declared = graph.inputs.iter().filter(|input| !graph.constants.contains_key(&input.name));
        for (number, input) in declared.enumerate() {
            let name = &input.name;
            let shape = input.shape.as_ref().ok_or_else(|| format!("the input {name:?} declares no shape"))?;
            let first = match shape.first() {
                Some(Dimension::Named(axis)) => Some(axis.as_str()),
                Some(Dimension::Open) => None,
                Some(Dimension::Fixed(_)) | None => {
                    return Err(format!("the first axis of the input {name:?} is not open"));
                }
            };
            if number > 0 && first != batch_name {
                return Err(format!("the first axis of the input {name:?} has another name than that of other inputs"));
            }
            batch_name = first;
            let rest = shape[1..].iter().map(|dimension| match dimension {
                Dimension::Fixed(number) => Ok(Size::number(*number)),
                Dimension::Named(axis) if Some(axis.as_str()) == first => {
                    Err(format!("the batch axis {axis:?} stands twice in the shape of the input {name:?}"))
                }
                Dimension::Named(axis) => Ok(self.symbols.named(axis)),
                Dimension::Open => Ok(self.symbols.fresh()),
            });
            let shape = std::iter::once(Ok(Size::rows())).chain(rest).collect::<Result<_, _>>()?;
            known.insert(name.clone(), Tensor::rows(shape, 0));
        }
        Ok(known)
    }

    fn graph(&mut self, graph: &Graph, opsets: &Opsets, known: &mut Known) -> Result<(), String> {
        for (name, constant) in &graph.constants {
            known.insert(name.clone(), of_constant(constant));
        }
        self.nodes(&graph.nodes, opsets, known)
    }

    fn nodes(&mut self, nodes: &[Node], opsets: &Opsets, known: &mut Known) -> Result<(), String> {
        for node in nodes {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!("the model has more than {MAX_STEPS} nodes"));
            }
            let made = self.node(node, opsets, known)?;
            for (name, tensor) in node.outputs.iter().zip(made) {
                if !name.is_empty() {
                    known.insert(name.clone(), tensor);
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, opsets: &Opsets, known: &Known) -> Result<Vec<Tensor>, String> {
        let key = (node.domain.clone(), node.op_type.clone());
        if let Some(function) = self.model.functions.get(&key) {
            return self.function(function, node, opsets, known);
        }
        if node.attributes.values().any(|attribute| matches!(attribute, Attribute::Graph(_))) {
            return self.with_graphs(node, opsets, known);
        }
        let find = |name: &String| {
            let missing = || format!("nothing makes {name:?}, which {} takes", node.label());
            if name.is_empty() { Ok(None) } else { known.get(name).map(Some).ok_or_else(missing) }
        };
        let inputs = node.inputs.iter().map(find).collect::<Result<Vec<_>, String>>()?;
        let version = opsets.get(&node.domain).copied().unwrap_or(1);
        let mut call = Call { node, inputs, version, symbols: &mut self.symbols };
        let made = call.apply().map_err(|reason| format!("{}: {reason}", node.label()))?;
        Ok(made)
    }

    /// Runs through the nodes of a function as if they stood in the place of its call.
    fn function(
        &mut self,
        function: &Function,
        call: &Node,
        opsets: &Opsets,
        known: &Known,
    ) -> Result<Vec<Tensor>, String> {
        if self.calls >= MAX_CALLS {
            return Err(format!("functions call one another more than {MAX_CALLS} deep"));
        }
        let mut inside = Known::new();
        for (name, given) in function.inputs.iter().zip(&call.inputs) {
            if let Some(tensor) = known.get(given) {
                inside.insert(name.clone(), tensor.clone());
            }
        }
        let nodes: Vec<Node> = function.nodes.iter().map(|node| with_attributes(node, call)).collect();
        let opsets = if function.opsets.is_empty() { opsets } else { &function.opsets };
        self.calls += 1;
        let done = self.nodes(&nodes, opsets, &mut inside);
        self.calls -= 1;
        done?;
        let made = function.outputs.iter().map(|name| {
            inside.get(name).cloned().ok_or_else(|| format!("nothing makes {name:?} in the function {}", call.op_type))
        });
        made.collect()
    }

    /// A node that runs graphs: they see every tensor of the graph around them.
    fn with_graphs(&mut self, node: &Node, opsets: &Opsets, known: &Known) -> Result<Vec<Tensor>, String> {
        let graphs: Vec<&Graph> = node
            .attributes
            .values()
            .filter_map(|attribute| if let Attribute::Graph(graph) = attribute { Some(graph) } else { None })
            .collect();
        let given = |name: &String| known.get(name);
        if node.op_type == "If" && node.domain.is_empty() {
            let condition = node.inputs.first().and_then(given);
            if condition.is_none_or(|it| it.is_rows() || it.counted) {
                return Err(format!("{}: its condition depends on the rows", node.label()));
            }
            let branches =
                graphs.iter().map(|graph| self.branch(graph, opsets, known)).collect::<Result<Vec<_>, _>>()?;
            return self.join(node, &branches);
        }
        let seen = graphs.iter().flat_map(|graph| names(graph)).filter_map(|name| known.get(name));
        let free = node.inputs.iter().filter_map(given).chain(seen).all(|tensor| !tensor.is_rows() && !tensor.counted);
        if free {
            return Ok(vec![Tensor::fixed(None); node.outputs.len()]);
        }
        Err(format!("{}: what it does with rows is not followed", node.label()))
    }

    fn branch(&mut self, graph: &Graph, opsets: &Opsets, known: &Known) -> Result<Vec<Tensor>, String> {
        let mut inside = known.clone();
        self.graph(graph, opsets, &mut inside)?;
        let made = graph.outputs.iter().map(|output| {
            inside.get(&output.name).cloned().ok_or_else(|| format!("nothing makes {:?} in a branch", output.name))
        });
        made.collect()
    }

    /// What holds whichever branch is taken.
    fn join(&mut self, node: &Node, branches: &[Vec<Tensor>]) -> Result<Vec<Tensor>, String> {
        let [one, other] = branches else { return Err(format!("{}: it has no two branches", node.label())) };
        let both = one.iter().zip(other).map(|(one, other)| {
            if one == other {
                return Ok(one.clone());
            }
            if (one.axis, &one.repeats) != (other.axis, &other.repeats) || one.counted || other.counted {
                return Err(format!("{}: its branches differ in what they do with rows", node.label()));
            }
            let Some(axis) = one.axis else { return Ok(Tensor::fixed(None)) };
            let (Some(these), Some(those)) = (&one.shape, &other.shape) else { return Ok(Tensor::fixed(None)) };
            if these.len() != those.len() || these[axis] != those[axis] {
                return Err(format!("{}: its branches give different shapes", node.label()));
            }
            let shape = these.iter().zip(those).map(|(a, b)| if a == b { a.clone() } else { self.symbols.fresh() });
            Ok(Tensor { repeats: one.repeats.clone(), ..Tensor::rows(shape.collect(), axis) })
        });
        both.collect()
    }
}

/// Names that a graph takes from around it, or from itself.
fn names(graph: &Graph) -> Vec<&String> {
    let mut all: Vec<&String> = graph.outputs.iter().map(|output| &output.name).collect();
    for node in &graph.nodes {
        all.extend(&node.inputs);
        for attribute in node.attributes.values() {
            if let Attribute::Graph(inner) = attribute {
                all.extend(names(inner));
            }
        }
    }
    all
}

/// A node of a function, with the attributes that its call gives.
fn with_attributes(node: &Node, call: &Node) -> Node {
    let mut node = node.clone();
    let given = |attribute: &Attribute| match attribute {
        Attribute::Reference(name) => call.attributes.get(name).cloned(),
        other => Some(other.clone()),
    };
    node.attributes = node.attributes.iter().filter_map(|(name, it)| Some((name.clone(), given(it)?))).collect();
    node
}

fn of_constant(constant: &Constant) -> Tensor {
    let shape = constant.shape.iter().map(|size| Size::number(*size)).collect();
    let elements = constant.integers.as_ref().filter(|_| constant.shape.len() <= 1);
    let elements = elements.map(|numbers| numbers.iter().map(|number| Some(Size::number(*number))).collect());
    Tensor { elements, ones: constant.ones.clone(), ..Tensor::fixed(Some(shape)) }
}

impl Call<'_> {
    /// Operators keep what is along the axis of the rows in its order, whatever that is; only those that change shapes look at it.
    fn apply(&mut self) -> Made {
        let order = |tensor: &Tensor| {
            let size = tensor.shape.as_ref().zip(tensor.axis).and_then(|(shape, axis)| shape.get(axis).cloned());
            (size, tensor.repeats.clone())
        };
        let mut orders = self.inputs.iter().flatten().filter(|tensor| tensor.is_rows()).map(|tensor| order(tensor));
        let first = orders.next();
        let Some((size, Some(repeats))) = first.clone() else {
            if orders.any(|(_, repeats)| repeats.is_some()) {
                return Err("it joins rows with rows in another order".into());
            }
            return self.operator();
        };
        if orders.any(|other| Some(other) != first) {
            return Err("it joins rows with rows in another order".into());
        }
        let mut made = self.operator()?;
        if ["Flatten", "Reshape"].contains(&self.node.op_type.as_str()) && self.node.domain.is_empty() {
            return Ok(made);
        }
        for tensor in made.iter_mut().filter(|tensor| tensor.is_rows()) {
            if order(tensor).0 != size {
                return Err("what it does with rows in this order is not followed".into());
            }
            tensor.repeats = Some(repeats.clone());
        }
        Ok(made)
    }

    fn operator(&mut self) -> Made {
        let operator = self.node.op_type.as_str();
        if self.node.domain == "ai.onnx.ml" {
            return ml::apply(self);
        }
        if !["", "com.microsoft"].contains(&self.node.domain.as_str()) {
            return self.unknown();
        }
        let made = None
            .or_else(|| reshape::apply(self, operator))
            .or_else(|| movement::apply(self, operator))
            .or_else(|| gather::apply(self, operator))
            .or_else(|| reduction::apply(self, operator))
            .or_else(|| product::apply(self, operator))
            .or_else(|| network::apply(self, operator))
            .or_else(|| elementwise::apply(self, operator));
        made.unwrap_or_else(|| self.unknown())
    }

    /// An operator without a rule: what it makes of tensors without rows has none either.
    fn unknown(&self) -> Made {
        let inputs = || self.inputs.iter().flatten();
        if inputs().any(|tensor| tensor.is_rows()) {
            return Err("what this operator does with rows is not known".into());
        }
        let random = ["Random", "Bernoulli", "Multinomial"].iter().any(|name| self.node.op_type.starts_with(name));
        if random {
            return Err("its result is another one in each run".into());
        }
        let counted = inputs().any(|tensor| tensor.counted);
        Ok(vec![Tensor { counted, ..Tensor::fixed(None) }; self.node.outputs.len()])
    }

    fn input(&self, number: usize) -> Option<&Tensor> {
        self.inputs.get(number).copied().flatten()
    }

    fn need(&self, number: usize) -> Result<&Tensor, String> {
        self.input(number).ok_or_else(|| format!("its input {number} is missing"))
    }

    fn shape_of(&self, number: usize) -> Result<Vec<Size>, String> {
        self.need(number)?.shape.clone().ok_or_else(|| format!("the shape of its input {number} is not known"))
    }

    /// The numbers of an input that is a constant list.
    fn numbers(&self, number: usize) -> Option<Vec<i64>> {
        self.input(number)?.numbers()
    }

    /// Whether rows are among the inputs.
    fn has_rows(&self) -> bool {
        self.inputs.iter().flatten().any(|tensor| tensor.is_rows())
    }

    /// All inputs but those of these numbers must be the same whatever the batch is.
    fn others_are_fixed(&self, but: &[usize]) -> Result<(), String> {
        for (number, tensor) in self.inputs.iter().enumerate() {
            let Some(tensor) = tensor.filter(|_| !but.contains(&number)) else { continue };
            if tensor.is_rows() {
                return Err(format!("its input {number} holds rows where it should be the same for all"));
            }
            if tensor.counted {
                return Err(format!("its input {number} depends on the number of rows"));
            }
        }
        Ok(())
    }

    /// What is made of inputs that hold no rows.
    fn without_rows(&self, shape: Option<Vec<Size>>) -> Vec<Tensor> {
        let counted = self.inputs.iter().flatten().any(|tensor| tensor.counted);
        self.all(Tensor { counted, ..Tensor::fixed(shape) })
    }

    /// As many results as the node has outputs.
    fn all(&self, tensor: Tensor) -> Vec<Tensor> {
        vec![tensor; self.node.outputs.len().max(1)]
    }
}

#[cfg(test)]
mod tests;
