//! The operators of a graph: those that treat rows independently, and those that mix them.

use Attribute::{Float, Integer, Integers};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::{Generator, Value};
use crate::random_graphs::encode::Attribute;

impl Generator {
    /// Adds one operator, or a few, that treat rows independently.
    pub(super) fn keep(&mut self, value: Value) -> Value {
        let Value { name, trailing } = value.clone();
        let (name, rank) = (name.as_str(), trailing.len() as i64 + 1);
        let last = *trailing.last().unwrap();
        match self.rng.random_range(0..20) {
            0 => {
                let operator = *["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Softsign"]
                    .choose(&mut self.rng)
                    .unwrap();
                self.apply(operator, &[name], &[], trailing)
            }
            1 => {
                let operator =
                    *["Add", "Mul", "Sub", "Max", "PRelu"].choose(&mut self.rng).unwrap();
                let weights = self.floats(&[last]);
                self.apply(operator, &[name, &weights], &[], trailing)
            }
            2 => {
                let wide = self.rng.random_range(1..6);
                let weights = self.floats(&[last, wide]);
                let trailing = [&trailing[..trailing.len() - 1], &[wide]].concat();
                self.apply("MatMul", &[name, &weights], &[], trailing)
            }
            3 => {
                let operator = if self.rng.random_bool(0.5) { "Softmax" } else { "LogSoftmax" };
                self.apply(operator, &[name], &[("axis", Integer(-1))], trailing)
            }
            4 => {
                let (scale, bias) = (self.floats(&[last]), self.floats(&[last]));
                self.apply(
                    "LayerNormalization",
                    &[name, &scale, &bias],
                    &[("axis", Integer(-1)), ("epsilon", Float(0.1))],
                    trailing,
                )
            }
            5 => {
                let operator =
                    *["ReduceMean", "ReduceMax", "ReduceL2"].choose(&mut self.rng).unwrap();
                let reduced = self.node(
                    operator,
                    &[name],
                    &[("axes", Integers(vec![rank - 1])), ("keepdims", Integer(1))],
                );
                self.apply("Sub", &[name, &reduced], &[], trailing)
            }
            6 => {
                let other = self.node("Tanh", &[name], &[]);
                let trailing = [&trailing[..trailing.len() - 1], &[2 * last]].concat();
                self.apply("Concat", &[name, &other], &[("axis", Integer(rank - 1))], trailing)
            }
            7 => {
                let (starts, ends, axes) =
                    (self.integers(&[0]), self.integers(&[1]), self.integers(&[rank - 1]));
                let trailing = [&trailing[..trailing.len() - 1], &[1]].concat();
                self.apply("Slice", &[name, &starts, &ends, &axes], &[], trailing)
            }
            8 => {
                let picked: Vec<i64> = {
                    let count = self.rng.random_range(1..4);
                    (0..count).map(|_| self.rng.random_range(0..last)).collect()
                };
                let indices = self.integers(&picked);
                let trailing = [&trailing[..trailing.len() - 1], &[picked.len() as i64]].concat();
                self.apply("Gather", &[name, &indices], &[("axis", Integer(rank - 1))], trailing)
            }
            9 => self.apply(
                "Flatten",
                &[name],
                &[("axis", Integer(1))],
                vec![trailing.iter().product()],
            ),
            10 => {
                let shape = self.integers(&[0, -1]);
                self.apply("Reshape", &[name, &shape], &[], vec![trailing.iter().product()])
            }
            11 => {
                // As exporters write it: the first dimension is read from the shape.
                let rows = self.rows(&value);
                let (one, rest) = (self.integers(&[1]), self.integers(&[-1]));
                let shape = self.node("Concat", &[&rows, &one, &rest], &[("axis", Integer(0))]);
                self.apply("Reshape", &[name, &shape], &[], vec![1, trailing.iter().product()])
            }
            12 if rank == 3 => {
                let turned = [trailing[1], trailing[0]];
                self.apply(
                    "Transpose",
                    &[name],
                    &[("perm", Integers(vec![0, 2, 1]))],
                    turned.to_vec(),
                )
            }
            13 => {
                let axes = self.integers(&[1]);
                self.apply("Unsqueeze", &[name, &axes], &[], [&[1], trailing.as_slice()].concat())
            }
            14 => {
                let weights = self.floats(&[last]);
                let larger = self.node("Greater", &[name, &weights], &[]);
                let other = self.node("Neg", &[name], &[]);
                self.apply("Where", &[&larger, name, &other], &[], trailing)
            }
            15 => {
                let axis = self.integers(&[rank - 1]);
                self.apply("CumSum", &[name, &axis], &[], trailing)
            }
            16 => {
                let best = self.node(
                    "ArgMax",
                    &[name],
                    &[("axis", Integer(rank - 1)), ("keepdims", Integer(1))],
                );
                let best = self.node("Cast", &[&best], &[("to", Integer(1))]);
                self.apply("Add", &[name, &best], &[], trailing)
            }
            17 => {
                let half = self.node("Cast", &[name], &[("to", Integer(10))]);
                self.apply("Cast", &[&half], &[("to", Integer(1))], trailing)
            }
            18 => {
                // A constant of the shape of the value, with one row for each.
                let shape = self.node("Shape", &[name], &[]);
                let zeros = self.node("ConstantOfShape", &[&shape], &[]);
                let ones = self.node("Cos", &[&zeros], &[]);
                self.apply("Add", &[name, &ones], &[], trailing)
            }
            _ => {
                let flat = trailing.iter().product();
                let flattened = self.node("Flatten", &[name], &[("axis", Integer(1))]);
                let wide = self.rng.random_range(1..5);
                let (weights, bias) = (self.floats(&[wide, flat]), self.floats(&[wide]));
                self.apply(
                    "Gemm",
                    &[&flattened, &weights, &bias],
                    &[("transB", Integer(1))],
                    vec![wide],
                )
            }
        }
    }

    /// Adds one operator, or a few, that mix rows; most keep the shape.
    pub(super) fn mix(&mut self, value: Value) -> Value {
        self.mixes = true;
        let Value { name, trailing } = value.clone();
        let name = name.as_str();
        let zero = ("axes", Integers(vec![0]));
        match self.rng.random_range(0..12) {
            0 => {
                let operator = *["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1"]
                    .choose(&mut self.rng)
                    .unwrap();
                let all = self.node(operator, &[name], &[zero, ("keepdims", Integer(1))]);
                self.apply("Sub", &[name, &all], &[], trailing)
            }
            1 => self.apply("Softmax", &[name], &[("axis", Integer(0))], trailing),
            2 => {
                let axis = self.integers(&[0]);
                self.apply("CumSum", &[name, &axis], &[], trailing)
            }
            3 => {
                let first = self.integers(&[0]);
                let first = self.node("Gather", &[name, &first], &[("axis", Integer(0))]);
                self.apply("Add", &[name, &first], &[], trailing)
            }
            4 => {
                let reversed = self.reversed(name);
                Value { name: reversed, trailing }
            }
            5 => {
                let rows = self.rows(&value);
                let rows = self.node("Cast", &[&rows], &[("to", Integer(1))]);
                self.apply("Add", &[name, &rows], &[], trailing)
            }
            6 => {
                // All rows are shifted by one.
                let (one, zero, end) =
                    (self.integers(&[1]), self.integers(&[0]), self.integers(&[i64::MAX]));
                let rest = self.node("Slice", &[name, &one, &end, &zero], &[]);
                let first = self.node("Slice", &[name, &zero, &one, &zero], &[]);
                self.apply("Concat", &[&rest, &first], &[("axis", Integer(0))], trailing)
            }
            7 => {
                let wide = trailing.iter().product();
                let flat = self.node("Flatten", &[name], &[("axis", Integer(1))]);
                let turned = self.node("Transpose", &[&flat], &[("perm", Integers(vec![1, 0]))]);
                let square = self.node("MatMul", &[&turned, &flat], &[]);
                self.apply("MatMul", &[&flat, &square], &[], vec![wide])
            }
            8 => {
                let wide = trailing.iter().product();
                let shape = self.integers(&[1, -1, wide]);
                let sequence = self.node("Reshape", &[name, &shape], &[]);
                let soft = self.node("Softmax", &[&sequence], &[("axis", Integer(1))]);
                let back = self.integers(&[-1, wide]);
                self.apply("Reshape", &[&soft, &back], &[], vec![wide])
            }
            9 => {
                let all = self.node("ReduceMax", &[name], &[("keepdims", Integer(0))]);
                self.apply("Sub", &[name, &all], &[], trailing)
            }
            10 => {
                // Rows as the steps of a sequence.
                let wide: i64 = trailing.iter().product();
                let hidden = self.rng.random_range(1..4);
                let shape = self.integers(&[-1, 1, wide]);
                let sequence = self.node("Reshape", &[name, &shape], &[]);
                let (weights, recurrence) =
                    (self.floats(&[1, hidden, wide]), self.floats(&[1, hidden, hidden]));
                let states = self.node(
                    "RNN",
                    &[&sequence, &weights, &recurrence],
                    &[("hidden_size", Integer(hidden))],
                );
                let back = self.integers(&[-1, hidden]);
                self.apply("Reshape", &[&states, &back], &[], vec![hidden])
            }
            _ => {
                // The size of a row compared with all of them.
                let best =
                    self.node("ArgMax", &[name], &[("axis", Integer(0)), ("keepdims", Integer(1))]);
                let best = self.node("Cast", &[&best], &[("to", Integer(1))]);
                self.apply("Add", &[name, &best], &[], trailing)
            }
        }
    }
}
