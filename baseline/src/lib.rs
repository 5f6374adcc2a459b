//! The distributions of a model's inputs and outputs at the time of its acceptance, and statistics
//! of the difference to live traffic.
//!
//! `kubectl slipway baseline` writes a `baseline.json` from reference rows and the model; the model
//! server counts live traffic in the same bins. The reference fixes the bins, so counts of pods and
//! minutes add up, and every statistic here needs only counts. The whole crate is pure.

#![warn(missing_docs)]

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
/// Largest number of features in a file; a pod's export of them has a further limit.
pub const MAX_FEATURES: usize = 1024;
/// Largest number of quantile bins of a number.
pub const MAX_NUMERIC_BINS: usize = 20;
/// Largest number of named values of a category, or classes of a model.
pub const MAX_VALUES: usize = 64;
/// Longest name of a feature or a value, in bytes: it becomes the value of a label.
pub const MAX_NAME: usize = 64;
/// Largest number of golden requests.
pub const MAX_GOLDEN: usize = 64;
/// Largest number of values in all golden requests together.
pub const MAX_GOLDEN_VALUES: usize = 1 << 20;
