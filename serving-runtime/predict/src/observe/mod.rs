//! Counts live traffic in the bins of the baseline. Drift and expected accuracy are computed from
//! these counters, which add up over pods and time.
//!
//! Counting costs a request the search for its bins (a few nanoseconds per value) and one
//! uncontended lock. Nothing is computed here that can be computed from the counts later: the PSI
//! of one pod cannot be averaged with that of another.

pub mod args;
mod export;
pub mod golden;
mod outputs;
mod shards;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use slipway_baseline::{
    CalibrationCurve, FeatureColumn, HistogramBinner, HistogramBins, ModelBaseline, NumericBinner,
    ReferenceHistogram,
};
use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::tensor::{Tensor, TensorData};

pub use self::export::ObserverCollector;
pub use self::outputs::{ScoreRows, regression_output};
use self::shards::{ObservedCounts, ShardedCounts};
use crate::prediction::{OutputReader, PredictedLabel, Predictions};

/// Holds the observer once its model is loaded; the metrics registry is created before that.
pub type ObserverSlot = Arc<OnceLock<Arc<Observer>>>;

/// Number of bins of the margin between the two highest probabilities, each 1/10 wide.
pub const MARGIN_BINS: usize = 10;

/// An observed column of an input.
#[derive(Debug)]
struct ObservedColumn {
    /// The column's index in a row.
    at: usize,
    /// The index of the column's first bin among all bins.
    first: usize,
    binner: HistogramBinner,
}

/// The observed columns of one input.
#[derive(Debug)]
struct ObservedInput {
    index: usize,
    columns: Vec<ObservedColumn>,
}

/// How predictions are assigned to bins.
#[derive(Debug)]
enum PredictionTarget {
    /// Labels, by the index of their bin; after these follow the bins of other labels and of no
    /// label.
    Classes { places: HashMap<PredictedLabel, usize>, other: usize },
    /// Values of a regression, in an output.
    Values { output: usize, binner: HistogramBinner },
}

/// Counts the traffic of one model.
#[derive(Debug)]
pub struct Observer {
    inputs: Vec<ObservedInput>,
    observed: Vec<FeatureColumn>,
    left_out: usize,
    predictions: Option<(PredictionTarget, ReferenceHistogram, usize)>,
    scores: Option<(NumericBinner, ReferenceHistogram, usize)>,
    calibration: Option<(NumericBinner, CalibrationCurve)>,
    score_output: Option<usize>,
    margins: usize,
    classes: Vec<String>,
    rows: u64,
    shards: ShardedCounts,
}

/// The bins of a request's inputs, kept until the request is answered.
#[derive(Debug, Default)]
pub struct BinnedRequest {
    bins: Vec<u16>,
}

impl Observer {
    /// For a model with this signature, of which `baseline` is the (checked) baseline. At most
    /// `most` features are exported: those in `only`, or the first ones of the file.
    pub fn new(
        baseline: &ModelBaseline,
        signature: &ModelSignature,
        reader: OutputReader,
        most: usize,
        only: &[String],
    ) -> Self {
        let wanted = |f: &&FeatureColumn| only.is_empty() || only.contains(&f.name);
        let observed: Vec<FeatureColumn> =
            baseline.features.iter().filter(wanted).take(most).cloned().collect();
        let mut end = 0;
        let mut take = |bins: &HistogramBins| {
            let first = end;
            end += bins.len();
            first
        };
        let mut inputs: Vec<ObservedInput> = Vec::new();
        for feature in &observed {
            let Some(index) = signature.inputs.iter().position(|i| i.name == feature.input) else {
                continue;
            };
            let (first, binner) =
                (take(&feature.histogram.bins), HistogramBinner::new(&feature.histogram.bins));
            let column = ObservedColumn { at: feature.column, first, binner };
            match inputs.iter_mut().find(|i| i.index == index) {
                Some(input) => input.columns.push(column),
                None => inputs.push(ObservedInput { index, columns: vec![column] }),
            }
        }
        let predictions = baseline.predictions.as_ref().and_then(|histogram| {
            let target = prediction_target(histogram, signature, reader)?;
            Some((target, histogram.clone(), take(&histogram.bins)))
        });
        let scores = baseline.scores.as_ref().and_then(|histogram| {
            let HistogramBins::Numeric { edges, low, high } = &histogram.bins else { return None };
            Some((NumericBinner::new(edges, *low, *high), histogram.clone(), take(&histogram.bins)))
        });
        let margins = end;
        end += MARGIN_BINS;
        let classes = match &predictions {
            Some((PredictionTarget::Classes { .. }, histogram, _)) => histogram.bins.names(),
            _ => Vec::new(),
        };
        Self {
            left_out: baseline.features.len() - observed.len(),
            inputs,
            observed,
            predictions,
            scores,
            calibration: baseline.calibration.clone().map(|table| (table.binner(), table)),
            score_output: reader.score_output(),
            margins,
            shards: ShardedCounts::new(end, classes.len()),
            classes,
            rows: baseline.rows,
        }
    }

    /// Finds the bins of a request's inputs without counting them.
    pub fn bin_inputs(&self, inputs: &[Tensor], rows: usize) -> BinnedRequest {
        let mut bins = Vec::with_capacity(rows * self.observed.len());
        for input in &self.inputs {
            let Some(tensor) = inputs.get(input.index) else { continue };
            // A model without a batch axis has one row, whatever its first dimension is.
            let width = tensor.data.len() / rows.max(1);
            append_bins(&tensor.data, width, rows, &input.columns, &mut bins);
        }
        BinnedRequest { bins }
    }

    pub fn count_request(
        &self,
        binned: &BinnedRequest,
        outputs: &[Tensor],
        predictions: &Predictions,
        rows: usize,
    ) {
        let scored = self.score_output.and_then(|i| outputs.get(i)).map(ScoreRows::from_tensor);
        self.shards.update(|counts| {
            counts.rows += rows as u64;
            for bin in &binned.bins {
                counts.add(usize::from(*bin));
            }
            self.count_predictions(counts, outputs, predictions);
            for (row, scored) in scored.into_iter().flatten().enumerate() {
                self.count_scores(
                    counts,
                    scored,
                    predictions.labels.get(row).and_then(Option::as_ref),
                );
            }
        });
    }

    fn count_predictions(
        &self,
        counts: &mut ObservedCounts,
        outputs: &[Tensor],
        predictions: &Predictions,
    ) {
        counts.abstained += predictions.labels.iter().filter(|l| l.is_none()).count() as u64;
        match &self.predictions {
            Some((PredictionTarget::Classes { .. }, _, first)) => {
                for label in &predictions.labels {
                    counts.add(first + self.class_bin(label.as_ref()));
                }
            }
            Some((PredictionTarget::Values { output, binner }, _, first)) => {
                let Some(tensor) = outputs.get(*output) else { return };
                outputs::for_each_float(&tensor.data, |value| {
                    counts.add(first + binner.number_bin(value))
                });
            }
            None => {}
        }
    }

    /// The bin of a label among the classes.
    fn class_bin(&self, label: Option<&PredictedLabel>) -> usize {
        match (&self.predictions, label) {
            (Some((PredictionTarget::Classes { places, other }, ..)), Some(label)) => {
                *places.get(label).unwrap_or(other)
            }
            (Some((PredictionTarget::Classes { other, .. }, ..)), None) => other + 1,
            _ => 0,
        }
    }

    fn count_scores(
        &self,
        counts: &mut ObservedCounts,
        row: outputs::ScoredRow,
        label: Option<&PredictedLabel>,
    ) {
        let Some((best, margin)) = row.probability else { return };
        if let Some((binner, _, first)) = &self.scores {
            counts.add(first + binner.index(best));
        }
        let margin = ((margin * MARGIN_BINS as f64) as usize).min(MARGIN_BINS - 1);
        counts.add(self.margins + margin);
        if let Some((binner, table)) = &self.calibration
            && let Some(p) = table.bin_accuracy(binner.index(best))
        {
            counts.variance += p * (1.0 - p);
            if let Some((right, wrong)) = counts.expected.get_mut(self.class_bin(label)) {
                *right += p;
                *wrong += 1.0 - p;
            }
        }
    }

    /// The current totals of all counts.
    fn totals(&self) -> ObservedCounts {
        self.shards.totals()
    }
}

fn prediction_target(
    histogram: &ReferenceHistogram,
    signature: &ModelSignature,
    reader: OutputReader,
) -> Option<PredictionTarget> {
    match &histogram.bins {
        HistogramBins::Categorical { values } => {
            let mut places = HashMap::new();
            for (i, value) in values.iter().enumerate() {
                places.insert(PredictedLabel::Text(value.clone()), i);
                if let Ok(number) = value.parse::<i64>() {
                    places.insert(PredictedLabel::Number(number), i);
                }
            }
            Some(PredictionTarget::Classes { places, other: values.len() })
        }
        HistogramBins::Numeric { .. } => {
            let output = regression_output(signature, reader)?;
            Some(PredictionTarget::Values { output, binner: HistogramBinner::new(&histogram.bins) })
        }
    }
}

/// Appends the bins of all `columns` of all rows.
fn append_bins(
    data: &TensorData,
    width: usize,
    rows: usize,
    columns: &[ObservedColumn],
    bins: &mut Vec<u16>,
) {
    macro_rules! numbers {
        ($values:expr, $convert:expr) => {
            for row in 0..rows {
                let values = $values.get(row * width..(row + 1) * width).unwrap_or_default();
                for column in columns {
                    let bin = match values.get(column.at) {
                        #[allow(
                            clippy::redundant_closure_call,
                            reason = "the closure is the macro's argument"
                        )]
                        Some(value) => column.binner.number_bin($convert(*value)),
                        None => column.binner.missing_bin(),
                    };
                    // Features and bins are bounded, so all indices fit.
                    bins.push((column.first + bin) as u16);
                }
            }
        };
    }
    match data {
        TensorData::Bool(v) => numbers!(v, |x| f64::from(u8::from(x))),
        TensorData::U8(v) => numbers!(v, f64::from),
        TensorData::U16(v) => numbers!(v, f64::from),
        TensorData::U32(v) => numbers!(v, f64::from),
        TensorData::U64(v) => numbers!(v, |x| x as f64),
        TensorData::I8(v) => numbers!(v, f64::from),
        TensorData::I16(v) => numbers!(v, f64::from),
        TensorData::I32(v) => numbers!(v, f64::from),
        TensorData::I64(v) => numbers!(v, |x| x as f64),
        TensorData::F16(v) => numbers!(v, f64::from),
        TensorData::F32(v) => numbers!(v, f64::from),
        TensorData::F64(v) => numbers!(v, |x| x),
        TensorData::Bytes(v) => {
            for row in 0..rows {
                let values = v.get(row * width..(row + 1) * width).unwrap_or_default();
                for column in columns {
                    let bin = values
                        .get(column.at)
                        .map_or_else(|| column.binner.missing_bin(), |s| column.binner.text_bin(s));
                    bins.push((column.first + bin) as u16);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
