//! Reads scores and values of outputs row by row.

use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::tensor::{DataType, Tensor, TensorData};

use crate::prediction::OutputReader;

/// One row of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredRow {
    /// The highest probability and its margin over the second; `None` when the scores are not
    /// probabilities.
    pub probability: Option<(f64, f64)>,
}

/// The rows of a matrix of scores.
#[derive(Debug)]
pub struct ScoreRows<'a> {
    data: &'a TensorData,
    width: usize,
    row: usize,
    rows: usize,
}

impl<'a> ScoreRows<'a> {
    /// Reads an output of shape rows x classes; other shapes give no rows.
    pub fn from_tensor(tensor: &'a Tensor) -> Self {
        let (rows, width) = match tensor.shape[..] {
            [rows, width] if width >= 2 => (rows, width),
            _ => (0, 0),
        };
        Self { data: &tensor.data, width, row: 0, rows }
    }
}

impl Iterator for ScoreRows<'_> {
    type Item = ScoredRow;

    fn next(&mut self) -> Option<ScoredRow> {
        if self.row >= self.rows {
            return None;
        }
        let range = self.row * self.width..(self.row + 1) * self.width;
        self.row += 1;
        Some(match self.data {
            TensorData::F32(v) => score_row(v.get(range)?.iter().map(|x| f64::from(*x))),
            TensorData::F64(v) => score_row(v.get(range)?.iter().copied()),
            _ => return None,
        })
    }
}

fn score_row(row: impl Iterator<Item = f64>) -> ScoredRow {
    let (mut best, mut second, mut sum, mut good) = (0.0_f64, 0.0_f64, 0.0, true);
    for x in row {
        sum += x;
        good &= (0.0..=1.000_001).contains(&x);
        if x > best {
            (best, second) = (x, best);
        } else if x > second {
            second = x;
        }
    }
    ScoredRow {
        probability: (good && (sum - 1.0_f64).abs() < 0.01).then_some((best, best - second)),
    }
}

/// The output that holds one number per row, for a model that returns neither labels nor scores.
pub fn regression_output(signature: &ModelSignature, reader: OutputReader) -> Option<usize> {
    if reader.is_classifier() {
        return None;
    }
    signature.outputs.iter().position(|s| {
        let float = matches!(s.datatype, DataType::F32 | DataType::F64);
        float && matches!(s.shape[..], [_] | [_, Some(1)])
    })
}

/// Calls `each` with every float of `data`.
pub(super) fn for_each_float(data: &TensorData, mut each: impl FnMut(f64)) {
    match data {
        TensorData::F32(v) => v.iter().for_each(|x| each(f64::from(*x))),
        TensorData::F64(v) => v.iter().for_each(|x| each(*x)),
        _ => {}
    }
}
