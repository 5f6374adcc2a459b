//! What a model's inputs and outputs looked like when it was accepted, and how far today is from
//! it.
//!
//! `kubectl slipway baseline` writes a `baseline.json` from reference rows and the model; the model
//! server counts live traffic into the same bins. Bins are fixed by the reference, so counts of
//! pods and minutes add up, and every statistic here needs counts only. Everything in this crate is
//! pure.

mod bins;
mod calibration;
mod format;
mod histogram;
pub mod stats;
mod validate;

pub use bins::{CategoricalBinner, HistogramBinner, NumericBinner};
pub use calibration::CalibrationCurve;
pub use format::{
    BaselineError, BaselineModel, BaselineTensorSpec, FeatureColumn, GoldenRequest, GoldenSet,
    GoldenTensor, HistogramBins, ModelBaseline, NumericTolerance, ReferenceHistogram,
};

/// The version of the format that this crate writes and reads.
pub const FORMAT: &str = "slipway.dev/baseline/v1";
/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 32 << 20;
/// Most features of a file; what a pod exports of them is bounded once more.
pub const MAX_FEATURES: usize = 1024;
/// Most quantile bins of a number.
pub const MAX_NUMERIC_BINS: usize = 20;
/// Most named values of a category, or classes of a model.
pub const MAX_VALUES: usize = 64;
/// Longest name of a feature or a value, in bytes: it becomes a label's value.
pub const MAX_NAME: usize = 64;
/// Most golden requests.
pub const MAX_GOLDEN: usize = 64;
/// Most values in all golden requests together.
pub const MAX_GOLDEN_VALUES: usize = 1 << 20;
