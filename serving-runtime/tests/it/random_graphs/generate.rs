//! Generates random graphs from operators that treat the rows of a batch independently and
//! operators that mix them.

mod operators;

use Attribute::Integer;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::encode::{Attribute, Constant, Graph, Kind, Node, Port};

/// A graph, and whether an operator on the path to its output mixes rows.
#[derive(Debug)]
pub(super) struct Random {
    pub(super) graph: Graph,
    pub(super) mixes: bool,
}

/// An intermediate float value: its name and its dimensions after the first.
#[derive(Debug, Clone)]
struct Value {
    name: String,
    trailing: Vec<i64>,
}

struct Generator {
    rng: StdRng,
    graph: Graph,
    names: usize,
    mixes: bool,
}

/// The graph of a seed.
pub(super) fn generate(seed: u64) -> Random {
    let mut rng = StdRng::seed_from_u64(seed);
    let trailing = if rng.random_bool(0.3) {
        vec![rng.random_range(1..4), rng.random_range(2..5)]
    } else {
        vec![rng.random_range(1..6)]
    };
    let mut generator = Generator { rng, graph: Graph::default(), names: 0, mixes: false };
    let mut value = generator.input(trailing);
    // Half of the graphs mix rows, at a random position.
    let length = generator.rng.random_range(1..7);
    let mixing = generator.rng.random_bool(0.5).then(|| generator.rng.random_range(0..length));
    for place in 0..length {
        value = if mixing == Some(place) { generator.mix(value) } else { generator.keep(value) };
    }
    generator.finish(value)
}

impl Generator {
    fn name(&mut self, of: &str) -> String {
        self.names += 1;
        format!("{of}{}", self.names)
    }

    fn input(&mut self, trailing: Vec<i64>) -> Value {
        let kind = *[Kind::F32, Kind::F32, Kind::I64, Kind::F16].choose(&mut self.rng).unwrap();
        let name = self.name("input");
        self.graph.inputs.push(Port { name: name.clone(), kind, trailing: trailing.clone() });
        let value = Value { name, trailing };
        if kind == Kind::F32 {
            value
        } else {
            self.apply("Cast", &[&value.name], &[("to", Integer(1))], value.trailing)
        }
    }

    /// Adds an operator with one output and returns the name of its value.
    fn node(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: &[(&'static str, Attribute)],
    ) -> String {
        let output = self.name("value");
        self.graph.nodes.push(Node {
            operator,
            inputs: inputs.iter().map(|name| (*name).to_owned()).collect(),
            outputs: vec![output.clone()],
            attributes: attributes.to_vec(),
        });
        output
    }

    fn apply(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: &[(&'static str, Attribute)],
        trailing: Vec<i64>,
    ) -> Value {
        Value { name: self.node(operator, inputs, attributes), trailing }
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let name = self.name("integers");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.graph.constants.push(Constant {
            name: name.clone(),
            kind: Kind::I64,
            shape: vec![values.len() as i64],
            bytes,
            external: None,
        });
        name
    }

    fn floats(&mut self, shape: &[i64]) -> String {
        let name = self.name("weights");
        let count = shape.iter().product::<i64>();
        let bytes =
            (0..count).flat_map(|_| self.rng.random_range(-1.0_f32..1.0).to_le_bytes()).collect();
        self.graph.constants.push(Constant {
            name: name.clone(),
            kind: Kind::F32,
            shape: shape.to_vec(),
            bytes,
            external: None,
        });
        name
    }

    /// The number of rows, a list of one integer.
    fn rows(&mut self, value: &Value) -> String {
        let shape = self.node("Shape", &[&value.name], &[]);
        let first = self.integers(&[0]);
        self.node("Gather", &[&shape, &first], &[])
    }

    /// The last value is an output; others of integers, booleans and strings may be added.
    fn finish(mut self, value: Value) -> Random {
        let Value { name, trailing } = value;
        if self.rng.random_bool(0.3) {
            let rank = trailing.len() as i64 + 1;
            let best = self.node(
                "ArgMax",
                &[&name],
                &[("axis", Integer(rank - 1)), ("keepdims", Integer(0))],
            );
            self.output(best, Kind::I64, trailing[..trailing.len() - 1].to_vec());
        }
        if self.rng.random_bool(0.2) {
            let weights = self.floats(&[*trailing.last().unwrap()]);
            let larger = self.node("Greater", &[&name, &weights], &[]);
            self.output(larger, Kind::Bool, trailing.clone());
        }
        if self.rng.random_bool(0.2) {
            let text = self.name("text");
            self.graph.inputs.push(Port { name: text.clone(), kind: Kind::Text, trailing: vec![] });
            let given = if self.mixes {
                self.reversed(&text)
            } else {
                self.node("Identity", &[&text], &[])
            };
            self.output(given, Kind::Text, vec![]);
        }
        if self.rng.random_bool(0.3) {
            let half = self.node("Cast", &[&name], &[("to", Integer(10))]);
            self.output(half, Kind::F16, trailing);
        } else {
            self.output(name, Kind::F32, trailing);
        }
        Random { graph: self.graph, mixes: self.mixes }
    }

    fn output(&mut self, name: String, kind: Kind, trailing: Vec<i64>) {
        self.graph.outputs.push(Port { name, kind, trailing });
    }

    /// The rows in reverse order.
    fn reversed(&mut self, name: &str) -> String {
        let (starts, ends) = (self.integers(&[-1]), self.integers(&[i64::MIN + 1]));
        let (axes, steps) = (self.integers(&[0]), self.integers(&[-1]));
        self.node("Slice", &[name, &starts, &ends, &axes, &steps], &[])
    }
}
