//! Requests to a random graph and their answers, in JSON or, for FP16, in binary.

use half::f16;
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::support::Server;
use super::encode::{Graph, Kind, Port};

/// The values of a tensor: those that must be equal, and those that may differ by rounding.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Exact(Vec<String>),
    /// The allowed error is relative to the largest value of a row.
    Close(Vec<f64>, f64),
}

/// The outputs of one answer: shapes and values.
pub(super) type Answer = Vec<(Vec<usize>, Values)>;

#[derive(Debug)]
pub(super) struct Request {
    outputs: Vec<Port>,
    /// Name, type, shape, elements.
    inputs: Vec<(Port, Vec<usize>, Vec<Value>)>,
}

const fn datatype(kind: Kind) -> &'static str {
    match kind {
        Kind::F32 => "FP32",
        Kind::I64 => "INT64",
        Kind::Text => "BYTES",
        Kind::Bool => "BOOL",
        Kind::F16 => "FP16",
    }
}

impl Request {
    pub(super) fn new(graph: &Graph, rows: usize, rng: &mut StdRng) -> Self {
        let element = |kind: Kind, rng: &mut StdRng| match kind {
            Kind::I64 => json!(rng.random_range(-3..4_i64)),
            Kind::Text => json!(["a", "bc", "", "é"][rng.random_range(0..4)]),
            Kind::Bool => json!(rng.random_bool(0.5)),
            // Quarters are exact in FP16.
            Kind::F16 => json!(f64::from(rng.random_range(-8..9_i8)) / 4.0),
            Kind::F32 => json!(f64::from(rng.random_range(-2.0_f32..2.0))),
        };
        let inputs = graph.inputs.iter().map(|port| {
            let shape: Vec<usize> = std::iter::once(rows)
                .chain(port.trailing.iter().map(|size| usize::try_from(*size).unwrap()))
                .collect();
            let elements =
                (0..shape.iter().product::<usize>()).map(|_| element(port.kind, rng)).collect();
            (port.clone(), shape, elements)
        });
        Self { inputs: inputs.collect(), outputs: graph.outputs.clone() }
    }

    /// Whether the request and its answer can be expressed in JSON.
    pub(super) fn in_json(&self) -> bool {
        self.inputs
            .iter()
            .map(|(port, ..)| port)
            .chain(&self.outputs)
            .all(|port| port.kind != Kind::F16)
    }

    pub(super) fn json(&self) -> Value {
        let inputs = self.inputs.iter().map(|(port, shape, elements)| {
            json!({"name": port.name, "shape": shape, "datatype": datatype(port.kind), "data": elements})
        });
        json!({"inputs": inputs.collect::<Vec<_>>()})
    }

    /// The JSON part and the bytes that follow it.
    fn binary(&self) -> (String, Vec<u8>) {
        let mut blobs = Vec::new();
        let inputs = self.inputs.iter().map(|(port, shape, elements)| {
            let before = blobs.len();
            for element in elements {
                match port.kind {
                    Kind::F32 => blobs.extend((element.as_f64().unwrap() as f32).to_le_bytes()),
                    Kind::F16 => blobs.extend(f16::from_f64(element.as_f64().unwrap()).to_le_bytes()),
                    Kind::I64 => blobs.extend(element.as_i64().unwrap().to_le_bytes()),
                    Kind::Bool => blobs.push(u8::from(element.as_bool().unwrap())),
                    Kind::Text => {
                        let text = element.as_str().unwrap();
                        blobs.extend((text.len() as u32).to_le_bytes());
                        blobs.extend(text.as_bytes());
                    }
                }
            }
            let size = json!({"binary_data_size": blobs.len() - before});
            json!({"name": port.name, "shape": shape, "datatype": datatype(port.kind), "parameters": size})
        });
        let inputs: Vec<Value> = inputs.collect();
        (json!({"inputs": inputs, "parameters": {"binary_data_output": true}}).to_string(), blobs)
    }

    pub(super) async fn send(&self, server: &Server) -> Answer {
        const LENGTH: &str = "inference-header-content-length";
        let post = server.post("/v2/models/m/infer");
        let response = if self.in_json() {
            post.body(self.json().to_string()).send().await.unwrap()
        } else {
            let (head, blobs) = self.binary();
            post.header(LENGTH, head.len())
                .body([head.as_bytes(), &blobs].concat())
                .send()
                .await
                .unwrap()
        };
        let status = response.status();
        let length = response
            .headers()
            .get(LENGTH)
            .map(|value| value.to_str().unwrap().parse::<usize>().unwrap());
        let body = response.bytes().await.unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let (head, blobs) = body.split_at(length.unwrap_or(body.len()));
        let head: Value = serde_json::from_slice(head).unwrap();
        if length.is_none() { self.read(&head) } else { self.read_binary(&head, blobs) }
    }

    /// Parses an answer in JSON.
    pub(super) fn read(&self, answer: &Value) -> Answer {
        let outputs =
            answer["outputs"].as_array().unwrap_or_else(|| panic!("no outputs: {answer}"));
        assert_eq!(outputs.len(), self.outputs.len());
        let each = self.outputs.iter().zip(outputs).map(|(port, output)| {
            assert_eq!(output["name"], port.name);
            let data = output["data"].as_array().unwrap();
            let values = match port.kind {
                Kind::F32 => Values::Close(
                    data.iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect(),
                    1e-5,
                ),
                _ => Values::Exact(data.iter().map(Value::to_string).collect()),
            };
            (shape(output), values)
        });
        each.collect()
    }

    fn read_binary(&self, head: &Value, mut blobs: &[u8]) -> Answer {
        let outputs = head["outputs"].as_array().unwrap();
        let each = self.outputs.iter().zip(outputs).map(|(port, output)| {
            let size = usize::try_from(output["parameters"]["binary_data_size"].as_u64().unwrap())
                .unwrap();
            let (blob, rest) = blobs.split_at(size);
            blobs = rest;
            let values = match port.kind {
                Kind::F32 => Values::Close(
                    blob.chunks(4)
                        .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                        .collect(),
                    1e-5,
                ),
                Kind::F16 => Values::Close(
                    blob.chunks(2)
                        .map(|b| f64::from(f16::from_le_bytes(b.try_into().unwrap())))
                        .collect(),
                    1e-2,
                ),
                _ => Values::Exact(vec![hex::encode(blob)]),
            };
            (shape(output), values)
        });
        each.collect()
    }
}

fn shape(output: &Value) -> Vec<usize> {
    serde_json::from_value(output["shape"].clone()).unwrap()
}

/// The difference between two answers, if there is one.
pub(super) fn differ(alone: &Answer, together: &Answer) -> Option<String> {
    alone.iter().zip(together).enumerate().find_map(|(number, ((shape, values), (other_shape, others)))| {
        let told = || {
            Some(format!("output {number}: {values:?} of {shape:?} alone, {others:?} of {other_shape:?} in company"))
        };
        if shape != other_shape {
            return told();
        }
        match (values, others) {
            (Values::Close(values, error), Values::Close(others, _)) => {
                let width = shape.iter().skip(1).product::<usize>().max(1);
                let same = values.len() == others.len()
                    && values.chunks(width).zip(others.chunks(width)).all(|(a, b)| close(a, b, *error));
                if same { None } else { told() }
            }
            (values, others) => {
                if values == others {
                    None
                } else {
                    told()
                }
            }
        }
    })
}

/// Whether two rows are equal except for rounding, relative to their largest number.
fn close(row: &[f64], other: &[f64], error: f64) -> bool {
    let largest = row.iter().filter(|x| x.is_finite()).fold(0.0_f64, |most, x| most.max(x.abs()));
    row.iter()
        .zip(other)
        .all(|(a, b)| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= error * largest)
}
