//! The feedback of clients on predictions, and the responses to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of a feedback request.
#[derive(Debug, Deserialize, Serialize)]
pub struct FeedbackRequest {
    pub feedback: Vec<FeedbackItem>,
}

/// The feedback on one prediction.
#[derive(Debug, Deserialize, Serialize)]
pub struct FeedbackItem {
    /// The prediction id of the answer.
    pub prediction_id: String,
    /// The true label of a prediction of one row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Value>,
    /// The true labels by row; null where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<Value>>,
    /// A business outcome of the prediction, instead of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<BusinessOutcome>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct BusinessOutcome {
    /// One of the declared names.
    pub name: String,
    /// From 0 to [`MAX_VALUE`]: 1 or 0 for whether an event occurred, an amount, or seconds.
    pub value: f64,
}

/// Greatest value of an outcome: small enough that sums of many values stay accurate to cents.
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
    /// The prediction has no labels (a regression, or a row beyond the capacity of an id).
    NoPrediction,
    /// Neither `label` nor `labels`, more labels than rows, or a label that is neither a number nor
    /// a string.
    InvalidLabel,
    /// The name of the outcome is not declared.
    UnknownOutcome,
    /// A value that is negative, too great or not a number, or an outcome together with labels.
    InvalidOutcome,
}

impl FeedbackRejection {
    /// All reasons.
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

/// The counts that an accepted item adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CountedFeedback {
    /// The revision that made the prediction.
    pub revision: String,
    /// Number of correctly predicted rows.
    pub correct: u64,
    /// Number of wrongly predicted rows.
    pub incorrect: u64,
    /// Name and value of an outcome.
    pub outcome: Option<(String, f64)>,
    /// When the prediction was made, in Unix seconds.
    pub predicted_at: u64,
    /// Age of the prediction.
    pub age_seconds: u64,
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct FeedbackResponse {
    /// Number of counted items.
    pub accepted: usize,
    /// Number of rejected items.
    pub rejected: usize,
    /// Number of rejected items by reason.
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

    /// Adds the counts of another gateway.
    pub fn append(&mut self, other: Self) {
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.rejected = self.rejected.saturating_add(other.rejected);
        for (reason, count) in other.reasons {
            let sum = self.reasons.entry(reason).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}
