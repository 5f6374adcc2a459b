//! Writes ONNX model files (`onnx.proto`): the part of the format that the graphs of these tests
//! need.

/// Element types of tensors (`TensorProto.DataType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F32 = 1,
    I64 = 7,
    Text = 8,
    Bool = 9,
    F16 = 10,
}

/// The value of an attribute.
#[derive(Debug, Clone)]
pub(super) enum Attribute {
    Integer(i64),
    Integers(Vec<i64>),
    Float(f32),
}

/// An operation.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) operator: &'static str,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
}

/// A constant.
#[derive(Debug, Clone)]
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) shape: Vec<i64>,
    /// Little-endian.
    pub(super) bytes: Vec<u8>,
    /// The file next to the model that holds the bytes, if they are not in the model.
    pub(super) external: Option<String>,
}

/// An input or an output; its first dimension is `N`, the others are given.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) trailing: Vec<i64>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) constants: Vec<Constant>,
    pub(super) nodes: Vec<Node>,
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(field: u64, value: i64, out: &mut Vec<u8>) {
    varint(field << 3, out);
    varint(value as u64, out);
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn message(field: u64, write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(field, &inner, out);
}

impl Attribute {
    fn write(&self, name: &str, out: &mut Vec<u8>) {
        bytes(1, name.as_bytes(), out);
        match self {
            Self::Float(value) => {
                varint(2 << 3 | 5, out);
                out.extend_from_slice(&value.to_le_bytes());
                number(20, 1, out);
            }
            Self::Integer(value) => {
                number(3, *value, out);
                number(20, 2, out);
            }
            Self::Integers(values) => {
                values.iter().for_each(|value| number(8, *value, out));
                number(20, 7, out);
            }
        }
    }
}

impl Node {
    fn write(&self, out: &mut Vec<u8>) {
        self.inputs.iter().for_each(|name| bytes(1, name.as_bytes(), out));
        self.outputs.iter().for_each(|name| bytes(2, name.as_bytes(), out));
        bytes(4, self.operator.as_bytes(), out);
        for (name, attribute) in &self.attributes {
            message(5, |out| attribute.write(name, out), out);
        }
    }
}

impl Constant {
    fn write(&self, out: &mut Vec<u8>) {
        self.shape.iter().for_each(|dimension| number(1, *dimension, out));
        number(2, self.kind as i64, out);
        bytes(8, self.name.as_bytes(), out);
        let Some(location) = &self.external else { return bytes(9, &self.bytes, out) };
        for (key, value) in
            [("location", location.clone()), ("length", self.bytes.len().to_string())]
        {
            let entry = |out: &mut Vec<u8>| {
                bytes(1, key.as_bytes(), out);
                bytes(2, value.as_bytes(), out);
            };
            message(13, entry, out);
        }
        number(14, 1, out);
    }
}

impl Port {
    fn write(&self, out: &mut Vec<u8>) {
        let shape = |out: &mut Vec<u8>| {
            message(1, |out| bytes(2, b"N", out), out);
            self.trailing.iter().for_each(|size| message(1, |out| number(1, *size, out), out));
        };
        let tensor = |out: &mut Vec<u8>| {
            number(1, self.kind as i64, out);
            message(2, shape, out);
        };
        bytes(1, self.name.as_bytes(), out);
        message(2, |out| message(1, tensor, out), out);
    }
}

impl Graph {
    /// The content of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let graph = |out: &mut Vec<u8>| {
            self.nodes.iter().for_each(|node| message(1, |out| node.write(out), out));
            bytes(2, b"random", out);
            self.constants.iter().for_each(|constant| message(5, |out| constant.write(out), out));
            self.inputs.iter().for_each(|port| message(11, |out| port.write(out), out));
            self.outputs.iter().for_each(|port| message(12, |out| port.write(out), out));
        };
        let mut out = Vec::new();
        number(1, 8, &mut out);
        message(7, graph, &mut out);
        message(8, |out| number(2, 17, out), &mut out);
        out
    }
}
