//! Counts true labels and business outcomes that arrive later: each once, for the revision that
//! made the prediction.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use serde_json::Value;
use slipway_gateway_policy::split::hash_parts;
use slipway_prediction_id::{MAX_ROWS, PredictedLabel, PredictionId};

use super::item::{CountedFeedback, FeedbackItem, FeedbackRejection, MAX_VALUE};

/// Maximum difference between the clocks of two nodes.
const SKEW_SECONDS: u64 = 300;

/// Limits of the stored feedback.
#[derive(Debug, Clone, Copy)]
pub struct FeedbackLimits {
    /// Age in seconds after which a prediction accepts no more feedback.
    pub ttl_seconds: u64,
    /// Number of predictions stored to reject duplicates.
    pub max_remembered: usize,
}

impl Default for FeedbackLimits {
    fn default() -> Self {
        Self { ttl_seconds: 24 * 3600, max_remembered: 500_000 }
    }
}

/// Number and time of a prediction, and the type of feedback: 0 for labels, else the hash of the
/// outcome's name.
type FeedbackKey = (u64, u32, u32);

#[derive(Debug, Default)]
struct SeenFeedback {
    seen: HashSet<FeedbackKey>,
    order: VecDeque<FeedbackKey>,
}

/// Stores which predictions have already received feedback.
#[derive(Debug, Default)]
pub struct FeedbackLedger {
    limits: FeedbackLimits,
    memory: Mutex<SeenFeedback>,
}

impl FeedbackLedger {
    /// Creates an empty ledger.
    pub fn new(limits: FeedbackLimits) -> Self {
        Self { limits, memory: Mutex::default() }
    }

    /// Evaluates one item, whose id has been opened, and records it if it counts. `now` is in Unix
    /// seconds; `taken` are the names of the accepted outcomes.
    ///
    /// # Errors
    /// Why the item does not count.
    pub fn record(
        &self,
        id: PredictionId,
        item: &FeedbackItem,
        now: u64,
        taken: &[String],
    ) -> Result<CountedFeedback, FeedbackRejection> {
        let made = u64::from(id.seconds);
        if made + self.limits.ttl_seconds < now {
            return Err(FeedbackRejection::Expired);
        }
        if made > now + SKEW_SECONDS {
            return Err(FeedbackRejection::InvalidTime);
        }
        let counted = evaluate_item(item, &id.labels, taken)?;
        let what = counted
            .outcome
            .as_ref()
            .map_or(0, |(name, _)| (hash_parts(&[name.as_bytes()]) as u32).max(1));
        self.remember((id.number, id.seconds, what), now)?;
        Ok(CountedFeedback {
            revision: id.revision,
            predicted_at: made,
            age_seconds: now.saturating_sub(made),
            ..counted
        })
    }

    fn remember(&self, key: FeedbackKey, now: u64) -> Result<(), FeedbackRejection> {
        let mut memory = self.memory.lock();
        if !memory.seen.insert(key) {
            return Err(FeedbackRejection::Duplicate);
        }
        memory.order.push_back(key);
        // Removes entries that are too old to be accepted again, and entries above the limit.
        let old =
            |(_, seconds, _): &FeedbackKey| u64::from(*seconds) + self.limits.ttl_seconds < now;
        while let Some(oldest) = memory.order.front().copied()
            && (memory.order.len() > self.limits.max_remembered || old(&oldest))
        {
            memory.order.pop_front();
            memory.seen.remove(&oldest);
        }
        Ok(())
    }
}

/// The counts that an item adds, when outcomes with the names `taken` are accepted.
fn evaluate_item(
    item: &FeedbackItem,
    predicted: &[Option<PredictedLabel>],
    taken: &[String],
) -> Result<CountedFeedback, FeedbackRejection> {
    let Some(outcome) = &item.outcome else {
        let (correct, incorrect) = compare_labels(item, predicted)?;
        return Ok(CountedFeedback { correct, incorrect, ..CountedFeedback::default() });
    };
    if !taken.contains(&outcome.name) {
        return Err(FeedbackRejection::UnknownOutcome);
    }
    // A decreasing sum is not a counter; a refund, for example, is an outcome of its own.
    let good =
        (0.0..=MAX_VALUE).contains(&outcome.value) && item.label.is_none() && item.labels.is_none();
    if !good {
        return Err(FeedbackRejection::InvalidOutcome);
    }
    Ok(CountedFeedback {
        outcome: Some((outcome.name.clone(), outcome.value)),
        ..CountedFeedback::default()
    })
}

/// Counts correctly and wrongly predicted rows.
fn compare_labels(
    item: &FeedbackItem,
    predicted: &[Option<PredictedLabel>],
) -> Result<(u64, u64), FeedbackRejection> {
    let truths: &[Value] = match (&item.label, &item.labels) {
        (Some(one), None) => std::slice::from_ref(one),
        (None, Some(many)) if !many.is_empty() => many,
        _ => return Err(FeedbackRejection::InvalidLabel),
    };
    if predicted.iter().all(Option::is_none) {
        return Err(FeedbackRejection::NoPrediction);
    }
    // With several rows it is ambiguous which one a single label belongs to.
    let ambiguous = item.label.is_some() && predicted.len() > 1;
    if ambiguous || (truths.len() > predicted.len() && predicted.len() < MAX_ROWS) {
        return Err(FeedbackRejection::InvalidLabel);
    }
    let (mut correct, mut incorrect) = (0, 0);
    for (truth, predicted) in truths.iter().zip(predicted) {
        let Some(truth) = canonical_label(truth)? else { continue };
        match predicted {
            Some(label) if label.to_string() == truth => correct += 1,
            Some(_) => incorrect += 1,
            None => {}
        }
    }
    if correct + incorrect == 0 {
        Err(FeedbackRejection::NoPrediction)
    } else {
        Ok((correct, incorrect))
    }
}

/// The text by which labels are compared: 3, 3.0 and "3" are the same class.
fn canonical_label(value: &Value) -> Result<Option<String>, FeedbackRejection> {
    match value {
        Value::Null => Ok(None),
        Value::String(s) => Ok(Some(s.clone())),
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f.fract() == 0.0 => Ok(Some(format!("{f:.0}"))),
            _ => Ok(Some(n.to_string())),
        },
        _ => Err(FeedbackRejection::InvalidLabel),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::item::BusinessOutcome;

    const NOW: u64 = 1_800_000_000;

    fn id(number: u64, age: u64, labels: &[i64]) -> PredictionId {
        let labels = labels.iter().map(|n| Some(PredictedLabel::Number(*n))).collect();
        PredictionId { revision: "rev".into(), seconds: (NOW - age) as u32, number, labels }
    }

    fn item(
        label: Option<Value>,
        labels: Option<Vec<Value>>,
        outcome: Option<BusinessOutcome>,
    ) -> FeedbackItem {
        FeedbackItem { prediction_id: String::new(), label, labels, outcome }
    }

    fn one(label: Value) -> FeedbackItem {
        item(Some(label), None, None)
    }

    #[test]
    fn right_and_wrong_are_counted_for_who_predicted() {
        let book = FeedbackLedger::default();
        let record = |id, item: &FeedbackItem| book.record(id, item, NOW, &[]).unwrap();
        let got = record(id(1, 5, &[3]), &one(json!(3)));
        let want = CountedFeedback {
            revision: "rev".into(),
            correct: 1,
            predicted_at: NOW - 5,
            age_seconds: 5,
            ..CountedFeedback::default()
        };
        assert_eq!(got, want);
        assert_eq!(record(id(2, 5, &[3]), &one(json!("3"))).correct, 1);
        assert_eq!(record(id(3, 5, &[3]), &one(json!(3.0))).correct, 1);
        assert_eq!(record(id(4, 5, &[3]), &one(json!(4))).incorrect, 1);
        let many = item(None, Some(vec![json!(1), json!(null), json!(9)]), None);
        let got = record(id(5, 5, &[1, 2, 3]), &many);
        assert_eq!((got.correct, got.incorrect), (1, 1));
    }

    #[test]
    fn what_cannot_count_is_rejected_with_a_reason() {
        let book = FeedbackLedger::default();
        let reject = |id, item: &FeedbackItem| book.record(id, item, NOW, &[]).unwrap_err();
        assert_eq!(reject(id(1, 90_000, &[1]), &one(json!(1))), FeedbackRejection::Expired);
        assert_eq!(reject(id(1, 0, &[]), &one(json!(1))), FeedbackRejection::NoPrediction);
        assert_eq!(reject(id(1, 0, &[1]), &one(json!([1]))), FeedbackRejection::InvalidLabel);
        assert_eq!(reject(id(1, 0, &[1, 2]), &one(json!(1))), FeedbackRejection::InvalidLabel);
        assert_eq!(
            reject(id(1, 0, &[1]), &item(None, None, None)),
            FeedbackRejection::InvalidLabel
        );
        let future = PredictionId { seconds: (NOW + 900) as u32, ..id(1, 0, &[1]) };
        assert_eq!(reject(future, &one(json!(1))), FeedbackRejection::InvalidTime);
    }

    #[test]
    fn duplicates_are_rejected_within_a_bounded_memory() {
        let book =
            FeedbackLedger::new(FeedbackLimits { max_remembered: 2, ..FeedbackLimits::default() });
        let record = |number| book.record(id(number, 0, &[1]), &one(json!(1)), NOW, &[]);
        for number in 0..3 {
            record(number).unwrap();
        }
        assert_eq!(record(2), Err(FeedbackRejection::Duplicate));
        assert!(record(0).is_ok(), "the oldest is forgotten");
        assert_eq!(book.memory.lock().seen.len(), 2);
        // A day later no id of today is accepted again, so none is stored.
        let tomorrow = NOW + 2 * 86_400;
        let late = PredictionId { seconds: tomorrow as u32, ..id(9, 0, &[1]) };
        book.record(late, &one(json!(1)), tomorrow, &[]).unwrap();
        assert_eq!(book.memory.lock().seen.len(), 1);
    }

    #[test]
    fn outcomes_are_counted_beside_labels_and_once_each() {
        let names = ["conversion".to_owned(), "revenue".to_owned()];
        let book = FeedbackLedger::default();
        let report = |number: u64, name: &str, value: f64, labels: &[i64]| {
            let outcome = Some(BusinessOutcome { name: name.into(), value });
            book.record(id(number, 60, labels), &item(None, None, outcome), NOW, &names)
        };
        assert_eq!(
            report(1, "conversion", 1.0, &[3]).unwrap().outcome,
            Some(("conversion".into(), 1.0))
        );
        assert_eq!(
            report(1, "revenue", 12.5, &[3]).unwrap().outcome,
            Some(("revenue".into(), 12.5))
        );
        assert_eq!(report(1, "revenue", 12.5, &[3]), Err(FeedbackRejection::Duplicate));
        assert_eq!(book.record(id(1, 60, &[3]), &one(json!(3)), NOW, &names).unwrap().correct, 1);
        assert!(report(2, "conversion", 0.0, &[]).is_ok(), "a regression has outcomes too");
        assert_eq!(report(3, "clicks", 1.0, &[3]), Err(FeedbackRejection::UnknownOutcome));
        for value in [-1.0, f64::NAN, f64::INFINITY, 1e10] {
            assert_eq!(report(3, "revenue", value, &[3]), Err(FeedbackRejection::InvalidOutcome));
        }
        let both = item(
            Some(json!(3)),
            None,
            Some(BusinessOutcome { name: "revenue".into(), value: 1.0 }),
        );
        assert_eq!(
            book.record(id(4, 60, &[3]), &both, NOW, &names),
            Err(FeedbackRejection::InvalidOutcome)
        );
    }
}
