//! Feedback: true labels and business outcomes that arrive later, counted for the revision that predicted.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::observe::args::MAX_OUTCOMES;
use crate::prediction::Label;
use crate::token::Token;

/// Clocks of two nodes may differ by this much.
const SKEW_SECONDS: u64 = 300;

/// The body of a feedback request.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// The items.
    pub feedback: Vec<Item>,
}

/// The truth for one prediction.
#[derive(Debug, Deserialize)]
pub struct Item {
    /// As the answer carried it.
    pub prediction_id: String,
    /// The true label of a prediction of one row.
    pub label: Option<Value>,
    /// The true labels by row; null where unknown.
    pub labels: Option<Vec<Value>>,
    /// What became of the prediction, instead of labels.
    pub outcome: Option<Outcome>,
}

/// A business outcome of one prediction.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// One of the declared names.
    pub name: String,
    /// From 0 to [`MAX_VALUE`]: 1 or 0 for what happened or not, an amount, seconds.
    pub value: f64,
}

/// Greatest value of an outcome: sums of many still keep their cents.
pub const MAX_VALUE: f64 = 1e9;

/// Why an item was not counted. The names are the values of the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejected {
    /// Not a prediction id.
    MalformedId,
    /// Older than the time limit.
    Expired,
    /// From the future.
    InvalidTime,
    /// Counted before.
    Duplicate,
    /// The prediction has no labels (a regression, or a row beyond what a token holds).
    NoPrediction,
    /// Neither `label` nor `labels`, more labels than rows, or a label that is neither a number nor a string.
    InvalidLabel,
    /// More revisions than a pod exports.
    TooManyRevisions,
    /// An outcome whose name is not declared.
    UnknownOutcome,
    /// A value that is negative, too great or not a number, or an outcome together with labels.
    InvalidOutcome,
}

impl Rejected {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::MalformedId,
        Self::Expired,
        Self::InvalidTime,
        Self::Duplicate,
        Self::NoPrediction,
        Self::InvalidLabel,
        Self::TooManyRevisions,
        Self::UnknownOutcome,
        Self::InvalidOutcome,
    ];

    /// The metric's label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedId => "malformed_id",
            Self::Expired => "expired",
            Self::InvalidTime => "invalid_time",
            Self::Duplicate => "duplicate",
            Self::NoPrediction => "no_prediction",
            Self::InvalidLabel => "invalid_label",
            Self::TooManyRevisions => "too_many_revisions",
            Self::UnknownOutcome => "unknown_outcome",
            Self::InvalidOutcome => "invalid_outcome",
        }
    }
}

/// What an accepted item adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// The revision that predicted.
    pub revision: String,
    /// Rows that were right.
    pub correct: u64,
    /// Rows that were wrong.
    pub incorrect: u64,
    /// Name and value of an outcome.
    pub outcome: Option<(String, f64)>,
    /// When the prediction was made, in Unix seconds.
    pub made: u64,
    /// How old the prediction is.
    pub age_seconds: u64,
}

/// The answer to a feedback request.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub struct Summary {
    /// Items counted.
    pub accepted: usize,
    /// Items not counted.
    pub rejected: usize,
    /// The rejected by reason.
    pub reasons: BTreeMap<&'static str, usize>,
}

/// The bounds on what feedback can do to a pod.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Age at which a prediction takes no more feedback, in seconds.
    pub ttl_seconds: u64,
    /// Revisions for which metrics are exported.
    pub revisions: usize,
    /// Predictions remembered to reject duplicates.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ttl_seconds: 24 * 3600, revisions: 8, remembered: 100_000 }
    }
}

/// Time and nonce of a prediction, and what was reported: 0 for labels, else an outcome.
type Key = (u32, u64, u8);

#[derive(Debug, Default)]
struct Memory {
    seen: HashSet<Key>,
    order: VecDeque<Key>,
    revisions: HashSet<String>,
    /// Names of outcomes in the order in which they came.
    outcomes: Vec<String>,
}

/// Most names of outcomes over the life of a pod: those that are taken may change meanwhile, and each name is three series a revision.
const REMEMBERED_OUTCOMES: usize = 4 * MAX_OUTCOMES;

impl Memory {
    /// The place of an outcome; none when there are too many.
    fn place(&mut self, name: &str) -> Option<usize> {
        let place = self.outcomes.iter().position(|known| known == name);
        if place.is_none() && self.outcomes.len() < REMEMBERED_OUTCOMES {
            self.outcomes.push(name.to_owned());
            return Some(self.outcomes.len() - 1);
        }
        place
    }
}

/// What a pod remembers of feedback.
#[derive(Debug)]
pub struct Book {
    limits: Limits,
    outcomes: Vec<String>,
    memory: Mutex<Memory>,
}

impl Book {
    /// A book in which `own`, the pod's revision, has a page from the start.
    pub fn new(own: &str, limits: Limits) -> Self {
        let memory = Memory { revisions: HashSet::from([own.to_owned()]), ..Memory::default() };
        Self { limits, outcomes: Vec::new(), memory: Mutex::new(memory) }
    }

    /// Takes outcomes of these names, the first few of them.
    #[must_use]
    pub fn with_outcomes(mut self, names: &[String]) -> Self {
        self.outcomes = names.iter().take(MAX_OUTCOMES).cloned().collect();
        self
    }

    /// The names of the outcomes that are taken.
    pub fn outcomes(&self) -> &[String] {
        &self.outcomes
    }

    /// Judges one item. `now` is in Unix seconds; `told` are the names of outcomes that are taken, where they are not those from the start.
    pub fn record(&self, item: &Item, now: u64, told: Option<&[String]>) -> Result<Counted, Rejected> {
        let token = Token::decode(&item.prediction_id).map_err(|_| Rejected::MalformedId)?;
        let made = u64::from(token.seconds);
        if made + self.limits.ttl_seconds < now {
            return Err(Rejected::Expired);
        }
        if made > now + SKEW_SECONDS {
            return Err(Rejected::InvalidTime);
        }
        let taken = told.unwrap_or(&self.outcomes);
        let mut counted = judge(item, &token.labels, taken)?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if !memory.revisions.contains(&token.revision) && memory.revisions.len() >= self.limits.revisions {
            return Err(Rejected::TooManyRevisions);
        }
        let what = match &counted.outcome {
            None => Some(0),
            Some((name, _)) => memory.place(name).and_then(|place| u8::try_from(place + 1).ok()),
        };
        let key = (token.seconds, token.nonce, what.ok_or(Rejected::UnknownOutcome)?);
        if !memory.seen.insert(key) {
            return Err(Rejected::Duplicate);
        }
        memory.order.push_back(key);
        if memory.order.len() > self.limits.remembered
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.seen.remove(&oldest);
        }
        memory.revisions.insert(token.revision.clone());
        counted.revision = token.revision;
        counted.made = made;
        counted.age_seconds = now.saturating_sub(made);
        Ok(counted)
    }
}

/// What an item adds, where outcomes of the names `taken` are taken.
fn judge(item: &Item, predicted: &[Option<Label>], taken: &[String]) -> Result<Counted, Rejected> {
    let Some(outcome) = &item.outcome else {
        let (correct, incorrect) = compare(item, predicted)?;
        return Ok(Counted { correct, incorrect, ..Counted::default() });
    };
    if !taken.contains(&outcome.name) {
        return Err(Rejected::UnknownOutcome);
    }
    // A sum that may shrink is no counter: what is given back is an outcome of its own.
    let good = (0.0..=MAX_VALUE).contains(&outcome.value) && item.label.is_none() && item.labels.is_none();
    if !good {
        return Err(Rejected::InvalidOutcome);
    }
    Ok(Counted { outcome: Some((outcome.name.clone(), outcome.value)), ..Counted::default() })
}

/// Counts right and wrong rows.
fn compare(item: &Item, predicted: &[Option<Label>]) -> Result<(u64, u64), Rejected> {
    let truths: &[Value] = match (&item.label, &item.labels) {
        (Some(one), None) => std::slice::from_ref(one),
        (None, Some(many)) if !many.is_empty() => many,
        _ => return Err(Rejected::InvalidLabel),
    };
    if predicted.iter().all(Option::is_none) {
        return Err(Rejected::NoPrediction);
    }
    // One label for several rows would be a guess about which row is meant.
    let ambiguous = item.label.is_some() && predicted.len() > 1;
    if ambiguous || (truths.len() > predicted.len() && predicted.len() < crate::token::MAX_ROWS) {
        return Err(Rejected::InvalidLabel);
    }
    let (mut correct, mut incorrect) = (0, 0);
    for (truth, predicted) in truths.iter().zip(predicted) {
        let Some(truth) = canonical(truth)? else { continue };
        match predicted {
            Some(label) if label.to_string() == truth => correct += 1,
            Some(_) => incorrect += 1,
            None => {}
        }
    }
    if correct + incorrect == 0 { Err(Rejected::NoPrediction) } else { Ok((correct, incorrect)) }
}

/// The text by which labels are compared: 3, 3.0 and "3" are the same class.
fn canonical(value: &Value) -> Result<Option<String>, Rejected> {
    match value {
        Value::Null => Ok(None),
        Value::String(s) => Ok(Some(s.clone())),
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f.fract() == 0.0 => Ok(Some(format!("{f:.0}"))),
            _ => Ok(Some(n.to_string())),
        },
        _ => Err(Rejected::InvalidLabel),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn id(revision: &str, nonce: u64, age: u64, labels: &[i64]) -> String {
        let labels = labels.iter().map(|n| Some(Label::Number(*n))).collect();
        Token { revision: revision.into(), seconds: (NOW - age) as u32, nonce, labels }.encode()
    }

    fn one(prediction_id: String, label: Value) -> Item {
        Item { prediction_id, label: Some(label), labels: None, outcome: None }
    }

    #[test]
    fn right_and_wrong_are_counted_for_who_predicted() {
        let book = Book::new("own", Limits::default());
        let got = book.record(&one(id("other", 1, 5, &[3]), json!(3)), NOW, None).unwrap();
        let want =
            Counted { revision: "other".into(), correct: 1, made: NOW - 5, age_seconds: 5, ..Counted::default() };
        assert_eq!(got, want);
        assert_eq!(book.record(&one(id("own", 2, 5, &[3]), json!("3")), NOW, None).unwrap().correct, 1);
        assert_eq!(book.record(&one(id("own", 3, 5, &[3]), json!(3.0)), NOW, None).unwrap().correct, 1);
        assert_eq!(book.record(&one(id("own", 4, 5, &[3]), json!(4)), NOW, None).unwrap().incorrect, 1);
        let many = Item {
            prediction_id: id("own", 5, 5, &[1, 2, 3]),
            label: None,
            labels: Some(vec![json!(1), json!(null), json!(9)]),
            outcome: None,
        };
        let got = book.record(&many, NOW, None).unwrap();
        assert_eq!((got.correct, got.incorrect), (1, 1));
    }

    #[test]
    fn what_cannot_count_is_rejected_with_a_reason() {
        let book = Book::new("own", Limits::default());
        let reject = |item: Item| book.record(&item, NOW, None).unwrap_err();
        assert_eq!(reject(one("nonsense".into(), json!(1))), Rejected::MalformedId);
        assert_eq!(reject(one(id("own", 1, 90_000, &[1]), json!(1))), Rejected::Expired);
        assert_eq!(reject(one(id("own", 1, 0, &[]), json!(1))), Rejected::NoPrediction);
        assert_eq!(reject(one(id("own", 1, 0, &[1]), json!([1]))), Rejected::InvalidLabel);
        assert_eq!(reject(one(id("own", 1, 0, &[1, 2]), json!(1))), Rejected::InvalidLabel);
        let future = Token {
            revision: "own".into(),
            seconds: (NOW + 900) as u32,
            nonce: 1,
            labels: vec![Some(Label::Number(1))],
        };
        assert_eq!(reject(one(future.encode(), json!(1))), Rejected::InvalidTime);
        let bad_revision =
            Token { revision: "BAD!".into(), seconds: NOW as u32, nonce: 1, labels: vec![Some(Label::Number(1))] };
        assert_eq!(reject(one(bad_revision.encode(), json!(1))), Rejected::MalformedId);
    }

    #[test]
    fn duplicates_are_rejected_within_a_bounded_memory() {
        let book = Book::new("own", Limits { remembered: 2, ..Limits::default() });
        for nonce in 0..3 {
            book.record(&one(id("own", nonce, 0, &[1]), json!(1)), NOW, None).unwrap();
        }
        assert_eq!(book.record(&one(id("own", 2, 0, &[1]), json!(1)), NOW, None), Err(Rejected::Duplicate));
        assert!(book.record(&one(id("own", 0, 0, &[1]), json!(1)), NOW, None).is_ok(), "the oldest is forgotten");
        assert_eq!(book.memory.lock().unwrap().seen.len(), 2);
    }

    #[test]
    fn outcomes_are_counted_beside_labels_and_once_each() {
        let names = ["conversion".to_owned(), "revenue".to_owned()];
        let book = Book::new("own", Limits::default()).with_outcomes(&names);
        let report = |nonce: u64, name: &str, value: f64, labels: &[i64]| {
            let outcome = Some(Outcome { name: name.into(), value });
            let prediction_id = id("own", nonce, 60, labels);
            book.record(&Item { prediction_id, label: None, labels: None, outcome }, NOW, None)
        };
        assert_eq!(report(1, "conversion", 1.0, &[3]).unwrap().outcome, Some(("conversion".into(), 1.0)));
        assert_eq!(report(1, "revenue", 12.5, &[3]).unwrap().outcome, Some(("revenue".into(), 12.5)));
        assert_eq!(report(1, "revenue", 12.5, &[3]), Err(Rejected::Duplicate));
        assert_eq!(book.record(&one(id("own", 1, 60, &[3]), json!(3)), NOW, None).unwrap().correct, 1);
        assert!(report(2, "conversion", 0.0, &[]).is_ok(), "a regression has outcomes too");
        assert_eq!(report(3, "clicks", 1.0, &[3]), Err(Rejected::UnknownOutcome));
        for value in [-1.0, f64::NAN, f64::INFINITY, 1e10] {
            assert_eq!(report(3, "revenue", value, &[3]), Err(Rejected::InvalidOutcome));
        }
        let outcome = Some(Outcome { name: "revenue".into(), value: 1.0 });
        let both = Item { prediction_id: id("own", 4, 60, &[3]), label: Some(json!(3)), labels: None, outcome };
        assert_eq!(book.record(&both, NOW, None), Err(Rejected::InvalidOutcome));
    }

    #[test]
    fn invented_revisions_are_bounded() {
        let book = Book::new("own", Limits { revisions: 3, ..Limits::default() });
        let mut accepted = 0;
        for n in 0..10_u64 {
            accepted += u64::from(book.record(&one(id(&format!("rev{n}"), n, 0, &[1]), json!(1)), NOW, None).is_ok());
        }
        assert_eq!(accepted, 2);
        assert!(book.record(&one(id("own", 99, 0, &[1]), json!(1)), NOW, None).is_ok(), "the pod's own always counts");
    }
}
