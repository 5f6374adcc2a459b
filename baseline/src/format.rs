//! `baseline.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CalibrationCurve, FORMAT, MAX_BYTES, validate};

/// A whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelBaseline {
    /// [`FORMAT`].
    pub format: String,
    /// The model that this is the baseline of.
    pub model: BaselineModel,
    /// Reference rows.
    pub rows: u64,
    /// A column of an input each.
    pub features: Vec<FeatureColumn>,
    /// What the model predicted on the reference: classes, or values of a regression. Absent when
    /// it predicts neither.
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

/// A model, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineModel {
    /// `sha256:<hex>` of the file.
    pub digest: String,
    /// What it takes.
    pub inputs: Vec<BaselineTensorSpec>,
    /// What it gives.
    pub outputs: Vec<BaselineTensorSpec>,
}

/// Name, datatype and shape as the Open Inference Protocol writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineTensorSpec {
    /// Name.
    pub name: String,
    /// Datatype, as in `FP32`.
    pub datatype: String,
    /// Shape, with -1 for what is open.
    pub shape: Vec<i64>,
}

/// One column of one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FeatureColumn {
    /// Its name: the value of the label `feature`.
    pub name: String,
    /// The input that it is part of.
    pub input: String,
    /// Its place in a row of that input, row-major.
    pub column: usize,
    /// Its values in the reference.
    pub histogram: ReferenceHistogram,
}

/// Bins with the reference's counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceHistogram {
    /// The bins.
    pub bins: HistogramBins,
    /// A count for each bin, in the order of [`HistogramBins::names`].
    pub counts: Vec<u64>,
}

/// Bins that every value falls into exactly one of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum HistogramBins {
    /// A number. Bin `i` holds `edges[i-1] < x <= edges[i]`, the outer ones reach on to `low` and
    /// `high`; then `out_of_range`, `nan`, `missing`.
    Numeric {
        /// Inner edges, ascending.
        edges: Vec<f64>,
        /// Below this a value is out of range.
        low: f64,
        /// Above this a value is out of range.
        high: f64,
    },
    /// A name. One bin for each of the values, then `other` and `missing`.
    Categorical {
        /// The most frequent values of the reference, most frequent first.
        values: Vec<String>,
    },
}

/// Requests with known answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoldenSet {
    /// How far a number may be off.
    #[serde(default)]
    pub tolerance: NumericTolerance,
    /// The requests, of one row each.
    #[serde(default)]
    pub requests: Vec<GoldenRequest>,
}

/// A number `got` is right when `|got - want| <= absolute + relative * |want|`. Integers, booleans
/// and texts are compared exactly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NumericTolerance {
    /// Independent of the size.
    pub absolute: f64,
    /// In proportion to the size.
    pub relative: f64,
}

impl Default for NumericTolerance {
    /// Float32 sums in another order (other batch, other processor) stay far within this.
    fn default() -> Self {
        Self { absolute: 1e-5, relative: 1e-4 }
    }
}

impl NumericTolerance {
    /// Whether `got` is as good as `want`. Two NaN are, and so are two equal infinities.
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
    /// Name.
    pub name: String,
    /// Datatype.
    pub datatype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: Vec<Value>,
}

/// Why a text is no baseline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// Over [`MAX_BYTES`].
    #[error(
        "the baseline has {0} bytes; at most {MAX_BYTES} are read: name fewer columns with --features, or fewer --golden"
    )]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("not a baseline: {0}; make one with `kubectl slipway baseline`")]
    Malformed(String),
    /// A version that this program does not know.
    #[error(
        "the baseline's format is {0:?}, and this program reads {FORMAT:?}; make it again with `kubectl slipway baseline` of this version"
    )]
    Format(String),
    /// A field holds what it must not.
    #[error("baseline field {field}: {problem}")]
    Invalid {
        /// The field, as a path.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl ModelBaseline {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// For whatever is not exactly a baseline of this version; what is returned can be used without
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
        // Another version has other fields: its version is what is worth saying.
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
    /// When it would not be read back: names that are too long, numbers that are not finite, too
    /// much of something.
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
