//! Reads a graph from a model file, without its weights.
//!
//! Numbers of fields are those of `onnx.proto` (github.com/onnx/onnx, IR version 13).

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{ModelFault, OnnxError};
use crate::graph::{
    ConstantTensor, Dimension, GraphNode, ModelFunction, NodeAttribute, OnnxGraph, OnnxModel,
    ValueInfo,
};
use crate::wire::{FieldValue, ProtobufReader, WireField};

/// Largest depth of graphs in attributes of nodes in graphs: no known model exceeds four.
const MAX_DEPTH: usize = 32;
/// Largest number of nodes of all graphs and functions together; the largest known models have some
/// ten thousand.
const MAX_NODES: usize = 200_000;
/// Largest number of integers that are kept of an attribute or a constant. Shapes, axes and
/// permutations are far shorter; the lists of tree ensembles are not needed.
const MAX_INTEGERS: usize = 256;
/// Largest number of inputs, outputs and attributes of one node, and of names in an attribute.
const MAX_LIST: usize = 65_536;

/// Reads the graph of a model file.
///
/// # Errors
/// When the file is no model, or exceeds the limits above.
pub fn read_model(path: &Path) -> Result<OnnxModel, OnnxError> {
    let (reader, length) = ProtobufReader::open(path)?;
    let mut parser = GraphParser { reader, nodes: 0 };
    Ok(parser.model(length)?)
}

struct GraphParser {
    reader: ProtobufReader,
    nodes: usize,
}

/// TensorProto.DataType.
const FLOAT: i64 = 1;
const INT32: i64 = 6;
const INT64: i64 = 7;
const BOOL: i64 = 9;

impl GraphParser {
    /// Skips a field.
    fn skip(&mut self, field: WireField) -> Result<(), ModelFault> {
        match field.value {
            FieldValue::Part(end) => self.reader.skip_to(end),
            FieldValue::Varint(_) | FieldValue::Fixed(_) => Ok(()),
        }
    }

    fn text(&mut self, field: WireField) -> Result<String, ModelFault> {
        match field.value {
            FieldValue::Part(end) => self.reader.text(end),
            FieldValue::Varint(_) | FieldValue::Fixed(_) => Ok(String::new()),
        }
    }

    fn push_text(&mut self, field: WireField, into: &mut Vec<String>) -> Result<(), ModelFault> {
        if into.len() >= MAX_LIST {
            return Err(ModelFault::Model(format!(
                "a node of the model has more than {MAX_LIST} inputs or outputs"
            )));
        }
        let text = self.text(field)?;
        into.push(text);
        Ok(())
    }

    fn model(&mut self, end: u64) -> Result<OnnxModel, ModelFault> {
        let mut model = OnnxModel::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (7, FieldValue::Part(end)) => model.graph = self.graph(end, 0)?,
                (8, FieldValue::Part(end)) => self.opset(end, &mut model.opsets)?,
                (25, FieldValue::Part(end)) => {
                    let function = self.function(end)?;
                    model
                        .functions
                        .insert((function.domain.clone(), function.name.clone()), function);
                }
                _ => self.skip(field)?,
            }
        }
        Ok(model)
    }

    fn opset(&mut self, end: u64, into: &mut BTreeMap<String, i64>) -> Result<(), ModelFault> {
        let (mut domain, mut version) = (String::new(), 1);
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => domain = self.text(field)?,
                (2, FieldValue::Varint(number)) => version = number.cast_signed(),
                _ => self.skip(field)?,
            }
        }
        into.insert(normalize_domain(domain), version);
        Ok(())
    }

    fn function(&mut self, end: u64) -> Result<ModelFunction, ModelFault> {
        let mut function = ModelFunction::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => function.name = self.text(field)?,
                (4, _) => self.push_text(field, &mut function.inputs)?,
                (5, _) => self.push_text(field, &mut function.outputs)?,
                (7, FieldValue::Part(end)) => {
                    let node = self.node(end, 1)?;
                    function.nodes.push(node);
                }
                (9, FieldValue::Part(end)) => self.opset(end, &mut function.opsets)?,
                (10, _) => function.domain = normalize_domain(self.text(field)?),
                _ => self.skip(field)?,
            }
        }
        Ok(function)
    }

    fn graph(&mut self, end: u64, depth: usize) -> Result<OnnxGraph, ModelFault> {
        if depth > MAX_DEPTH {
            return Err(ModelFault::Model(format!(
                "the model nests its graphs more than {MAX_DEPTH} deep"
            )));
        }
        let mut graph = OnnxGraph::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, FieldValue::Part(end)) => {
                    let node = self.node(end, depth)?;
                    graph.nodes.push(node);
                }
                (5, FieldValue::Part(end)) => {
                    let (name, constant) = self.constant(end)?;
                    graph.constants.insert(name, constant);
                }
                (11, FieldValue::Part(end)) => graph.inputs.push(self.value_info(end)?),
                (12, FieldValue::Part(end)) => graph.outputs.push(self.value_info(end)?),
                (15, FieldValue::Part(end)) => {
                    let (name, constant) = self.sparse_constant(end)?;
                    graph.constants.insert(name, constant);
                }
                _ => self.skip(field)?,
            }
        }
        Ok(graph)
    }

    fn node(&mut self, end: u64, depth: usize) -> Result<GraphNode, ModelFault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ModelFault::Model(format!("the model has more than {MAX_NODES} nodes")));
        }
        let mut node = GraphNode::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => self.push_text(field, &mut node.inputs)?,
                (2, _) => self.push_text(field, &mut node.outputs)?,
                (3, _) => node.name = self.text(field)?,
                (4, _) => node.op_type = self.text(field)?,
                (5, FieldValue::Part(end)) => {
                    let (name, attribute) = self.attribute(end, depth)?;
                    node.attributes.insert(name, attribute);
                }
                (7, _) => node.domain = normalize_domain(self.text(field)?),
                _ => self.skip(field)?,
            }
        }
        Ok(node)
    }

    fn attribute(&mut self, end: u64, depth: usize) -> Result<(String, NodeAttribute), ModelFault> {
        let (mut name, mut integers, mut attribute) =
            (String::new(), Vec::new(), NodeAttribute::Other);
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => name = self.text(field)?,
                (3, FieldValue::Varint(number)) => {
                    attribute = NodeAttribute::Integer(number.cast_signed())
                }
                (4, FieldValue::Part(_)) => attribute = NodeAttribute::Text(self.text(field)?),
                (5, FieldValue::Part(end)) => {
                    attribute = NodeAttribute::Constant(self.constant(end)?.1)
                }
                (6, FieldValue::Part(end)) => {
                    attribute = NodeAttribute::Graph(self.graph(end, depth + 1)?)
                }
                (8, value) if integers.len() <= MAX_INTEGERS => {
                    self.reader.integers(value, &mut integers, MAX_INTEGERS)?;
                }
                (21, FieldValue::Part(_)) => {
                    let reference = self.text(field)?;
                    if !reference.is_empty() {
                        attribute = NodeAttribute::Reference(reference);
                    }
                }
                // The attribute's type: a number whose value is 0 is not encoded, so only its type
                // is present.
                (20, FieldValue::Varint(2)) if attribute == NodeAttribute::Other => {
                    attribute = NodeAttribute::Integer(0)
                }
                (20, FieldValue::Varint(7)) if attribute == NodeAttribute::Other => {
                    attribute = NodeAttribute::Integers(vec![])
                }
                _ => self.skip(field)?,
            }
        }
        if !integers.is_empty() {
            let few = integers.len() <= MAX_INTEGERS;
            attribute = if few { NodeAttribute::Integers(integers) } else { NodeAttribute::Other };
        }
        Ok((name, attribute))
    }

    fn constant(&mut self, end: u64) -> Result<(String, ConstantTensor), ModelFault> {
        let (mut name, mut shape, mut integers, mut raw) =
            (String::new(), Vec::new(), Vec::new(), None);
        let (mut data_type, mut floats) = (0, Vec::new());
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, value) => self.reader.integers(value, &mut shape, MAX_INTEGERS)?,
                (4, value) if floats.len() <= MAX_INTEGERS => self.floats(value, &mut floats)?,
                (2, FieldValue::Varint(number)) => data_type = number.cast_signed(),
                (5 | 7, value) if integers.len() <= MAX_INTEGERS => {
                    self.reader.integers(value, &mut integers, MAX_INTEGERS)?;
                }
                (8, _) => name = self.text(field)?,
                (9, FieldValue::Part(end)) => {
                    raw = Some(self.reader.bytes(end, (MAX_INTEGERS * 8) as u64 + 1)?)
                }
                _ => self.skip(field)?,
            }
        }
        let elements =
            shape.iter().try_fold(1_usize, |all, dim| all.checked_mul(usize::try_from(*dim).ok()?));
        if let Some(raw) = raw.as_ref().filter(|_| data_type == FLOAT) {
            floats = raw
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes) == 1.0)
                .collect();
        }
        let integers = match (elements, raw) {
            (Some(elements), Some(raw)) if elements <= MAX_INTEGERS => {
                integers_from_raw(data_type, &raw)
            }
            (Some(elements), None)
                if elements <= MAX_INTEGERS && [INT32, INT64, BOOL].contains(&data_type) =>
            {
                Some(integers)
            }
            _ => None,
        };
        let integers = integers.filter(|integers| Some(integers.len()) == elements);
        let ones =
            (data_type == FLOAT).then_some(floats).filter(|ones| Some(ones.len()) == elements);
        Ok((name, ConstantTensor { shape, integers, equals_one: ones }))
    }

    /// For a repeated field of floats, which of them are 1.
    fn floats(&mut self, value: FieldValue, into: &mut Vec<bool>) -> Result<(), ModelFault> {
        match value {
            FieldValue::Fixed(bits) => {
                into.push(u32::try_from(bits).is_ok_and(|bits| f32::from_bits(bits) == 1.0))
            }
            FieldValue::Part(end) => {
                let bytes = self.reader.bytes(end, MAX_INTEGERS as u64 * 4 + 4)?;
                into.extend(
                    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes) == 1.0),
                );
            }
            FieldValue::Varint(_) => {}
        }
        Ok(())
    }

    /// Reads only the name and the shape.
    fn sparse_constant(&mut self, end: u64) -> Result<(String, ConstantTensor), ModelFault> {
        let (mut name, mut shape) = (String::new(), Vec::new());
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, FieldValue::Part(end)) => name = self.constant(end)?.0,
                (3, value) => self.reader.integers(value, &mut shape, MAX_INTEGERS)?,
                _ => self.skip(field)?,
            }
        }
        Ok((name, ConstantTensor { shape, integers: None, equals_one: None }))
    }

    fn value_info(&mut self, end: u64) -> Result<ValueInfo, ModelFault> {
        let mut declared = ValueInfo::default();
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, _) => declared.name = self.text(field)?,
                (2, FieldValue::Part(end)) => declared.shape = self.tensor_type(end)?,
                _ => self.skip(field)?,
            }
        }
        Ok(declared)
    }

    /// Reads the nested messages TypeProto, TypeProto.Tensor and TensorShapeProto.
    fn tensor_type(&mut self, end: u64) -> Result<Option<Vec<Dimension>>, ModelFault> {
        let mut shape = None;
        while let Some(field) = self.reader.field(end)? {
            let (1, FieldValue::Part(end)) = (field.number, field.value) else {
                self.skip(field)?;
                continue;
            };
            while let Some(field) = self.reader.field(end)? {
                let (2, FieldValue::Part(end)) = (field.number, field.value) else {
                    self.skip(field)?;
                    continue;
                };
                let mut dimensions = Vec::new();
                while let Some(field) = self.reader.field(end)? {
                    match (field.number, field.value) {
                        (1, FieldValue::Part(end)) if dimensions.len() < MAX_INTEGERS => {
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

    fn dimension(&mut self, end: u64) -> Result<Dimension, ModelFault> {
        let mut dimension = Dimension::Open;
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, FieldValue::Varint(number)) => {
                    let number = number.cast_signed();
                    // Some exporters write -1 or 0 for an open dimension.
                    dimension = if number > 0 { Dimension::Fixed(number) } else { Dimension::Open };
                }
                (2, FieldValue::Part(_)) => {
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
fn normalize_domain(domain: String) -> String {
    if domain == "ai.onnx" { String::new() } else { domain }
}

fn integers_from_raw(data_type: i64, raw: &[u8]) -> Option<Vec<i64>> {
    match data_type {
        INT64 => {
            Some(raw.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
        }
        INT32 => Some(
            raw.as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| i64::from(i32::from_le_bytes(*bytes)))
                .collect(),
        ),
        BOOL => Some(raw.iter().map(|byte| i64::from(*byte)).collect()),
        _ => None,
    }
}
