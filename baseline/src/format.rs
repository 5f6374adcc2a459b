//! The format of `baseline.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CalibrationCurve, FORMAT, MAX_BYTES, validate};

/// The content of a baseline file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelBaseline {
    /// The version of the format: [`FORMAT`].
    pub format: String,
    /// The model that the baseline was made from.
    pub model: BaselineModel,
    /// Number of reference rows.
    pub rows: u64,
    /// The features; each is a column of an input.
    pub features: Vec<FeatureColumn>,
    /// What the model predicted on the reference rows: classes, or values of a regression. Absent
    /// when it predicts neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<ReferenceHistogram>,
    /// The highest probability of each reference row. Absent without probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<ReferenceHistogram>,
    /// How often the model was right by score. Absent without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationCurve>,
    /// Requests with known answers.
    #[serde(default)]
    pub golden: GoldenSet,
}

/// A model, identified by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineModel {
    /// `sha256:<hex>` of the model's file.
    pub digest: String,
    /// The inputs of the model.
    pub inputs: Vec<BaselineTensorSpec>,
    /// The outputs of the model.
    pub outputs: Vec<BaselineTensorSpec>,
}

/// Name, datatype and shape as the Open Inference Protocol writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineTensorSpec {
    /// Name of the input or output.
    pub name: String,
    /// Datatype in the protocol's notation, such as `FP32`.
    pub datatype: String,
    /// Shape, with -1 for open dimensions.
    pub shape: Vec<i64>,
}

/// One column of one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FeatureColumn {
    /// Name of the feature: the value of the label `feature`.
    pub name: String,
    /// The input that contains the column.
    pub input: String,
    /// Index in a row of that input, row-major.
    pub column: usize,
    /// Distribution of the column's values in the reference rows.
    pub histogram: ReferenceHistogram,
}

/// Bins with the counts of the reference rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceHistogram {
    /// The bins of the histogram.
    pub bins: HistogramBins,
    /// A count for each bin, in the order of [`HistogramBins::names`].
    pub counts: Vec<u64>,
}

/// Bins such that every value falls into exactly one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum HistogramBins {
    /// Bins of a number. Bin `i` holds `edges[i-1] < x <= edges[i]`, the outer ones extend to `low`
    /// and `high`; then follow `out_of_range`, `nan`, `missing`.
    Numeric {
        /// Inner edges, ascending.
        edges: Vec<f64>,
        /// Values below this are out of range.
        low: f64,
        /// Values above this are out of range.
        high: f64,
    },
    /// Bins of a name. One bin for each of the values, then `other` and `missing`.
    Categorical {
        /// The most frequent values of the reference rows, most frequent first.
        values: Vec<String>,
    },
}

/// Requests with known answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoldenSet {
    /// Accepted difference of a number from the known answer.
    #[serde(default)]
    pub tolerance: NumericTolerance,
    /// The requests, of one row each.
    #[serde(default)]
    pub requests: Vec<GoldenRequest>,
}

/// A number `got` is accepted when `|got - want| <= absolute + relative * |want|`. Integers,
/// booleans and texts are compared exactly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NumericTolerance {
    /// The part that is independent of the expected value.
    pub absolute: f64,
    /// The part in proportion to the expected value.
    pub relative: f64,
}

impl Default for NumericTolerance {
    /// Float32 sums in another order (other batch, other processor) stay far within this tolerance.
    fn default() -> Self {
        Self { absolute: 1e-5, relative: 1e-4 }
    }
}

impl NumericTolerance {
    /// Whether `got` is within the tolerance of `want`. Two NaN are, and so are two equal
    /// infinities.
    pub fn accepts(&self, got: f64, want: f64) -> bool {
        if got.is_nan() || want.is_nan() {
            return got.is_nan() && want.is_nan();
        }
        got == want || (got - want).abs() <= self.absolute + self.relative * want.abs()
    }
}

/// One request with its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoldenRequest {
    /// All inputs, in the model's order.
    pub inputs: Vec<GoldenTensor>,
    /// All outputs, in the model's order.
    pub outputs: Vec<GoldenTensor>,
}

/// A tensor as the Open Inference Protocol writes it in JSON; `null` stands for NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoldenTensor {
    /// Name of the input or output.
    pub name: String,
    /// Datatype in the protocol's notation.
    pub datatype: String,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: Vec<Value>,
}

/// Why a text is not a valid baseline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// The file is larger than [`MAX_BYTES`].
    #[error(
        "the baseline has {0} bytes; at most {MAX_BYTES} are read: name fewer columns with --features, or fewer --golden"
    )]
    TooLarge(usize),
    /// The file is not JSON of this structure.
    #[error("not a baseline: {0}; make one with `kubectl slipway baseline`")]
    Malformed(String),
    /// The file has an unknown version of the format.
    #[error(
        "the baseline's format is {0:?}, and this program reads {FORMAT:?}; make it again with `kubectl slipway baseline` of this version"
    )]
    Format(String),
    /// A field has an invalid value.
    #[error("baseline field {field}: {problem}")]
    Invalid {
        /// The path of the field.
        field: String,
        /// What is wrong, and what would be valid.
        problem: String,
    },
}

impl ModelBaseline {
    /// Parses and checks a file.
    ///
    /// # Errors
    /// For any content that is not a valid baseline of this version; the returned value needs no
    /// further checks.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, BaselineError> {
        #[derive(Deserialize)]
        struct FormatVersion {
            format: Option<String>,
        }
        if bytes.len() > MAX_BYTES {
            return Err(BaselineError::TooLarge(bytes.len()));
        }
        let malformed = |e: serde_json::Error| BaselineError::Malformed(e.to_string());
        // Another version has other fields, so the version is checked first and reported.
        let version: FormatVersion = serde_json::from_slice(bytes).map_err(malformed)?;
        if let Some(format) = version.format.filter(|f| f != FORMAT) {
            return Err(BaselineError::Format(format));
        }
        let baseline: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        validate::validate_baseline(&baseline)?;
        Ok(baseline)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// When [`Self::from_slice`] would reject it: names that are too long, numbers that are not
    /// finite, or lists over their limits.
    pub fn to_vec(&self) -> Result<Vec<u8>, BaselineError> {
        validate::validate_baseline(self)?;
        let bytes =
            serde_json::to_vec_pretty(self).map_err(|e| BaselineError::Malformed(e.to_string()))?;
        if bytes.len() > MAX_BYTES {
            return Err(BaselineError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }
}
