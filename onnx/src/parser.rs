//! Reading a graph from a model file, without its weights.
//!
//! Numbers of fields are those of `onnx.proto` (github.com/onnx/onnx, IR version 13).

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Fault};
use crate::graph::{Attribute, Constant, Declared, Dimension, Function, Graph, Model, Node};
use crate::wire::{Field, Reader, Value};

/// Graphs in attributes of nodes in graphs: none of the known models goes beyond four.
const MAX_DEPTH: usize = 32;
/// Nodes of all graphs and functions together; the largest known models have some ten thousand.
const MAX_NODES: usize = 200_000;
/// Integers that are kept of an attribute or a constant. Shapes, axes and permutations are far shorter; the lists of tree ensembles are not needed.
const MAX_INTEGERS: usize = 256;
/// Inputs, outputs and attributes of one node, and names in an attribute.
const MAX_LIST: usize = 65_536;

/// Reads the graph of a model file.
///
/// # Errors
/// When the file is no model, or beyond the bounds above.
pub fn read(path: &Path) -> Result<Model, Error> {
    let (reader, length) = Reader::open(path)?;
    let mut parser = Parser { reader, nodes: 0 };
    Ok(parser.model(length)?)
}

struct Parser {
    reader: Reader,
    nodes: usize,
}

/// TensorProto.DataType.
const FLOAT: i64 = 1;
const INT32: i64 = 6;
const INT64: i64 = 7;
const BOOL: i64 = 9;

impl Parser {
    /// Reads over a field that nobody asked for.
    fn skip(&mut self, field: Field) -> Result<(), Fault> {
        match field.value {
            Value::Part(end) => self.reader.seek(end),
            Value::Varint(_) | Value::Fixed(_) => Ok(()),
        }
    }

    fn text(&mut self, field: Field) -> Result<String, Fault> {
        match field.value {
            Value::Part(end) => self.reader.text(end),
            Value::Varint(_) | Value::Fixed(_) => Ok(String::new()),
        }
    }

    fn push_text(&mut self, field: Field, into: &mut Vec<String>) -> Result<(), Fault> {
        if into.len() >= MAX_LIST {
            return Err(Fault::Model(format!("a node of the model has more than {MAX_LIST} inputs or outputs")));
        }
        let text = self.text(field)?;
        into.push(text);
        Ok(())
    }

    fn model(&mut self, end: u64) -> Result<Model, Fault> {
        let mut model = Model::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (7, Value::Part(end)) => model.graph = self.graph(end, 0)?,
                (8, Value::Part(end)) => self.opset(end, &mut model.opsets)?,
                (25, Value::Part(end)) => {
                    let function = self.function(end)?;
                    model.functions.insert((function.domain.clone(), function.name.clone()), function);
                }
                _ => self.skip(field)?,
            }
        }
        Ok(model)
    }

    fn opset(&mut self, end: u64, into: &mut BTreeMap<String, i64>) -> Result<(), Fault> {
        let (mut domain, mut version) = (String::new(), 1);
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => domain = self.text(field)?,
                (2, Value::Varint(number)) => version = number.cast_signed(),
                _ => self.skip(field)?,
            }
        }
        into.insert(normal(domain), version);
        Ok(())
    }

    fn function(&mut self, end: u64) -> Result<Function, Fault> {
        let mut function = Function::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => function.name = self.text(field)?,
                (4, _) => self.push_text(field, &mut function.inputs)?,
                (5, _) => self.push_text(field, &mut function.outputs)?,
                (7, Value::Part(end)) => {
                    let node = self.node(end, 1)?;
                    function.nodes.push(node);
                }
                (9, Value::Part(end)) => self.opset(end, &mut function.opsets)?,
                (10, _) => function.domain = normal(self.text(field)?),
                _ => self.skip(field)?,
            }
        }
        Ok(function)
    }

    fn graph(&mut self, end: u64, depth: usize) -> Result<Graph, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::Model(format!("the model nests its graphs more than {MAX_DEPTH} deep")));
        }
        let mut graph = Graph::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, Value::Part(end)) => {
                    let node = self.node(end, depth)?;
                    graph.nodes.push(node);
                }
                (5, Value::Part(end)) => {
                    let (name, constant) = self.constant(end)?;
                    graph.constants.insert(name, constant);
                }
                (11, Value::Part(end)) => graph.inputs.push(self.declared(end)?),
                (12, Value::Part(end)) => graph.outputs.push(self.declared(end)?),
                (15, Value::Part(end)) => {
                    let (name, constant) = self.sparse(end)?;
                    graph.constants.insert(name, constant);
                }
                _ => self.skip(field)?,
            }
        }
        Ok(graph)
    }

    fn node(&mut self, end: u64, depth: usize) -> Result<Node, Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Fault::Model(format!("the model has more than {MAX_NODES} nodes")));
        }
        let mut node = Node::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => self.push_text(field, &mut node.inputs)?,
                (2, _) => self.push_text(field, &mut node.outputs)?,
                (3, _) => node.name = self.text(field)?,
                (4, _) => node.op_type = self.text(field)?,
                (5, Value::Part(end)) => {
                    let (name, attribute) = self.attribute(end, depth)?;
                    node.attributes.insert(name, attribute);
                }
                (7, _) => node.domain = normal(self.text(field)?),
                _ => self.skip(field)?,
            }
        }
        Ok(node)
    }

    fn attribute(&mut self, end: u64, depth: usize) -> Result<(String, Attribute), Fault> {
        let (mut name, mut integers, mut attribute) = (String::new(), Vec::new(), Attribute::Other);
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => name = self.text(field)?,
                (3, Value::Varint(number)) => attribute = Attribute::Integer(number.cast_signed()),
                (4, Value::Part(_)) => attribute = Attribute::Text(self.text(field)?),
                (5, Value::Part(end)) => attribute = Attribute::Constant(self.constant(end)?.1),
                (6, Value::Part(end)) => attribute = Attribute::Graph(self.graph(end, depth + 1)?),
                (8, value) if integers.len() <= MAX_INTEGERS => {
                    self.reader.integers(value, &mut integers, MAX_INTEGERS)?;
                }
                (21, Value::Part(_)) => {
                    let reference = self.text(field)?;
                    if !reference.is_empty() {
                        attribute = Attribute::Reference(reference);
                    }
                }
                // The type: a number whose value is 0 is not written.
                (20, Value::Varint(2)) if attribute == Attribute::Other => attribute = Attribute::Integer(0),
                (20, Value::Varint(7)) if attribute == Attribute::Other => attribute = Attribute::Integers(vec![]),
                _ => self.skip(field)?,
            }
        }
        if !integers.is_empty() {
            let few = integers.len() <= MAX_INTEGERS;
            attribute = if few { Attribute::Integers(integers) } else { Attribute::Other };
        }
        Ok((name, attribute))
    }

    fn constant(&mut self, end: u64) -> Result<(String, Constant), Fault> {
        let (mut name, mut shape, mut integers, mut raw) = (String::new(), Vec::new(), Vec::new(), None);
        let (mut data_type, mut floats) = (0, Vec::new());
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, value) => self.reader.integers(value, &mut shape, MAX_INTEGERS)?,
                (4, value) if floats.len() <= MAX_INTEGERS => self.floats(value, &mut floats)?,
                (2, Value::Varint(number)) => data_type = number.cast_signed(),
                (5 | 7, value) if integers.len() <= MAX_INTEGERS => {
                    self.reader.integers(value, &mut integers, MAX_INTEGERS)?;
                }
                (8, _) => name = self.text(field)?,
                (9, Value::Part(end)) => raw = Some(self.reader.bytes(end, (MAX_INTEGERS * 8) as u64 + 1)?),
                _ => self.skip(field)?,
            }
        }
        let elements = shape.iter().try_fold(1_usize, |all, dim| all.checked_mul(usize::try_from(*dim).ok()?));
        if let Some(raw) = raw.as_ref().filter(|_| data_type == FLOAT) {
            floats = raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes) == 1.0).collect();
        }
        let integers = match (elements, raw) {
            (Some(elements), Some(raw)) if elements <= MAX_INTEGERS => from_raw(data_type, &raw),
            (Some(elements), None) if elements <= MAX_INTEGERS && [INT32, INT64, BOOL].contains(&data_type) => {
                Some(integers)
            }
            _ => None,
        };
        let integers = integers.filter(|integers| Some(integers.len()) == elements);
        let ones = (data_type == FLOAT).then_some(floats).filter(|ones| Some(ones.len()) == elements);
        Ok((name, Constant { shape, integers, ones }))
    }

    /// Which of a repeated field of floats are 1.
    fn floats(&mut self, value: Value, into: &mut Vec<bool>) -> Result<(), Fault> {
        match value {
            Value::Fixed(bits) => into.push(u32::try_from(bits).is_ok_and(|bits| f32::from_bits(bits) == 1.0)),
            Value::Part(end) => {
                let bytes = self.reader.bytes(end, MAX_INTEGERS as u64 * 4 + 4)?;
                into.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes) == 1.0));
            }
            Value::Varint(_) => {}
        }
        Ok(())
    }

    /// Only the name and the shape count.
    fn sparse(&mut self, end: u64) -> Result<(String, Constant), Fault> {
        let (mut name, mut shape) = (String::new(), Vec::new());
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, Value::Part(end)) => name = self.constant(end)?.0,
                (3, value) => self.reader.integers(value, &mut shape, MAX_INTEGERS)?,
                _ => self.skip(field)?,
            }
        }
        Ok((name, Constant { shape, integers: None, ones: None }))
    }

    fn declared(&mut self, end: u64) -> Result<Declared, Fault> {
        let mut declared = Declared::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => declared.name = self.text(field)?,
                (2, Value::Part(end)) => declared.shape = self.tensor_type(end)?,
                _ => self.skip(field)?,
            }
        }
        Ok(declared)
    }

    /// TypeProto, TypeProto.Tensor and TensorShapeProto, one in the other.
    fn tensor_type(&mut self, end: u64) -> Result<Option<Vec<Dimension>>, Fault> {
        let mut shape = None;
        while let Some(field) = self.reader.field(end)? {
            let (1, Value::Part(end)) = (field.number, field.value) else {
                self.skip(field)?;
                continue;
            };
            while let Some(field) = self.reader.field(end)? {
                let (2, Value::Part(end)) = (field.number, field.value) else {
                    self.skip(field)?;
                    continue;
                };
                let mut dimensions = Vec::new();
                while let Some(field) = self.reader.field(end)? {
                    match (field.number, field.value) {
                        (1, Value::Part(end)) if dimensions.len() < MAX_INTEGERS => {
                            dimensions.push(self.dimension(end)?);
                        }
                        _ => self.skip(field)?,
                    }
                }
                shape = Some(dimensions);
            }
        }
        Ok(shape)
    }

    fn dimension(&mut self, end: u64) -> Result<Dimension, Fault> {
        let mut dimension = Dimension::Open;
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, Value::Varint(number)) => {
                    let number = number.cast_signed();
                    // Some exporters write -1 or 0 for an open one.
                    dimension = if number > 0 { Dimension::Fixed(number) } else { Dimension::Open };
                }
                (2, Value::Part(_)) => {
                    let name = self.text(field)?;
                    if !name.is_empty() {
                        dimension = Dimension::Named(name);
                    }
                }
                _ => self.skip(field)?,
            }
        }
        Ok(dimension)
    }
}

/// `ai.onnx` is another name of the domain that is usually empty.
fn normal(domain: String) -> String {
    if domain == "ai.onnx" { String::new() } else { domain }
}

fn from_raw(data_type: i64, raw: &[u8]) -> Option<Vec<i64>> {
    match data_type {
        INT64 => Some(raw.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()),
        INT32 => Some(raw.as_chunks::<4>().0.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect()),
        BOOL => Some(raw.iter().map(|byte| i64::from(*byte)).collect()),
        _ => None,
    }
}
