//! What clients say of predictions, and what they are answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of a feedback request.
#[derive(Debug, Deserialize, Serialize)]
pub struct FeedbackRequest {
    /// The items.
    pub feedback: Vec<FeedbackItem>,
}

/// The truth for one prediction.
#[derive(Debug, Deserialize, Serialize)]
pub struct FeedbackItem {
    /// As the answer carried it.
    pub prediction_id: String,
    /// The true label of a prediction of one row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Value>,
    /// The true labels by row; null where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<Value>>,
    /// What became of the prediction, instead of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<BusinessOutcome>,
}

/// A business outcome of one prediction.
#[derive(Debug, Deserialize, Serialize)]
pub struct BusinessOutcome {
    /// One of the declared names.
    pub name: String,
    /// From 0 to [`MAX_VALUE`]: 1 or 0 for what happened or not, an amount, seconds.
    pub value: f64,
}

/// Greatest value of an outcome: sums of many still keep their cents.
pub(super) const MAX_VALUE: f64 = 1e9;

/// Why an item was not counted. The names are the values of the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackRejection {
    /// Not a prediction id of this ModelDeployment.
    InvalidId,
    /// Older than the time limit.
    Expired,
    /// From the future.
    InvalidTime,
    /// Counted before.
    Duplicate,
    /// The prediction has no labels (a regression, or a row beyond what an id holds).
    NoPrediction,
    /// Neither `label` nor `labels`, more labels than rows, or a label that is neither a number nor
    /// a string.
    InvalidLabel,
    /// An outcome whose name is not declared.
    UnknownOutcome,
    /// A value that is negative, too great or not a number, or an outcome together with labels.
    InvalidOutcome,
}

impl FeedbackRejection {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::InvalidId,
        Self::Expired,
        Self::InvalidTime,
        Self::Duplicate,
        Self::NoPrediction,
        Self::InvalidLabel,
        Self::UnknownOutcome,
        Self::InvalidOutcome,
    ];

    /// The metric's label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidId => "invalid_id",
            Self::Expired => "expired",
            Self::InvalidTime => "invalid_time",
            Self::Duplicate => "duplicate",
            Self::NoPrediction => "no_prediction",
            Self::InvalidLabel => "invalid_label",
            Self::UnknownOutcome => "unknown_outcome",
            Self::InvalidOutcome => "invalid_outcome",
        }
    }
}

/// What an accepted item adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CountedFeedback {
    /// The revision that predicted.
    pub revision: String,
    /// Rows that were right.
    pub correct: u64,
    /// Rows that were wrong.
    pub incorrect: u64,
    /// Name and value of an outcome.
    pub outcome: Option<(String, f64)>,
    /// When the prediction was made, in Unix seconds.
    pub predicted_at: u64,
    /// How old the prediction is.
    pub age_seconds: u64,
}

/// The answer to a feedback request.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct FeedbackResponse {
    /// Items counted.
    pub accepted: usize,
    /// Items not counted.
    pub rejected: usize,
    /// The rejected by reason.
    pub reasons: BTreeMap<String, usize>,
}

impl FeedbackResponse {
    /// Counts an item.
    pub fn add(&mut self, rejected: Option<FeedbackRejection>) {
        match rejected {
            None => self.accepted += 1,
            Some(rejected) => {
                self.rejected += 1;
                *self.reasons.entry(rejected.name().to_owned()).or_default() += 1;
            }
        }
    }

    /// Adds what another gateway has counted.
    pub fn append(&mut self, other: Self) {
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.rejected = self.rejected.saturating_add(other.rejected);
        for (reason, count) in other.reasons {
            let sum = self.reasons.entry(reason).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}
