//! Counts of feedback. Labels are counted as correct and incorrect; business outcomes (engagement,
//! conversion, revenue) as sums and counts, so that rates and means of an arm are quotients of two
//! counters over any window, and so are their standard errors.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use slipway_contracts::metric_names::{
    GATEWAY_FEEDBACK_TOTAL, GATEWAY_OUTCOME_VALUE_TOTAL, GATEWAY_OUTCOMES_TOTAL, family_name,
};
use tokio::time::Instant;

use super::item::{CountedFeedback, FeedbackRejection};
use super::windows::FeedbackWindows;

/// In seconds, from a minute to a week.
const AGE_BUCKETS: [f64; 11] = [
    1.0,
    10.0,
    60.0,
    300.0,
    1800.0,
    3600.0,
    4.0 * 3600.0,
    86_400.0,
    2.0 * 86_400.0,
    4.0 * 86_400.0,
    7.0 * 86_400.0,
];

/// Maximum number of counted revisions per ModelDeployment; beyond it, the revision without counts
/// for the longest time is removed.
const MAX_REVISIONS: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedbackOutcomeLabels {
    modeldeployment: String,
    revision: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedbackResultLabels {
    modeldeployment: String,
    revision: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedbackRevisionLabels {
    modeldeployment: String,
    revision: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedbackReasonLabels {
    modeldeployment: String,
    reason: &'static str,
}

type FloatCounter = Counter<f64, AtomicU64>;

/// State of a revision besides its series.
#[derive(Debug)]
struct KnownRevision {
    last_counted: Instant,
    /// Names of the outcomes that have series.
    outcomes: HashSet<String>,
}

/// The feedback metrics of all ModelDeployments of the gateway.
#[derive(Debug)]
pub struct FeedbackMetrics {
    labels: Family<FeedbackResultLabels, Counter>,
    rejected: Family<FeedbackReasonLabels, Counter>,
    counts: Family<FeedbackOutcomeLabels, Counter>,
    sums: Family<FeedbackOutcomeLabels, FloatCounter>,
    squares: Family<FeedbackOutcomeLabels, FloatCounter>,
    ages: Family<FeedbackRevisionLabels, Histogram>,
    windows: Arc<FeedbackWindows>,
    known: Mutex<HashMap<(String, String), KnownRevision>>,
    /// ModelDeployments that have series of rejections.
    models: Mutex<HashSet<String>>,
}

impl Default for FeedbackMetrics {
    fn default() -> Self {
        Self {
            labels: Family::default(),
            rejected: Family::default(),
            counts: Family::default(),
            sums: Family::default(),
            squares: Family::default(),
            ages: Family::new_with_constructor(|| Histogram::new(AGE_BUCKETS)),
            windows: Arc::default(),
            known: Mutex::default(),
            models: Mutex::default(),
        }
    }
}

impl FeedbackMetrics {
    /// Adds the metrics to the registry.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register(
            family_name(GATEWAY_FEEDBACK_TOTAL),
            "Rows of feedback by result",
            self.labels.clone(),
        );
        r.register(
            "slipway_gateway_feedback_rejected",
            "Items of feedback that were not counted",
            self.rejected.clone(),
        );
        r.register(
            family_name(GATEWAY_OUTCOMES_TOTAL),
            "Outcomes reported, by name",
            self.counts.clone(),
        );
        r.register(
            family_name(GATEWAY_OUTCOME_VALUE_TOTAL),
            "Sum of the values of outcomes",
            self.sums.clone(),
        );
        r.register(
            "slipway_gateway_outcome_value_squared",
            "Sum of their squares",
            self.squares.clone(),
        );
        r.register(
            "slipway_gateway_feedback_age_seconds",
            "From a prediction to its label",
            self.ages.clone(),
        );
        r.register_collector(Box::new(Arc::clone(&self.windows)));
    }

    /// Sets how long feedback is accepted.
    pub fn set_ttl(&self, ttl: Duration) {
        self.windows.set_length(ttl.as_secs());
    }

    /// Creates the series of a revision at 0, so that `increase()` sees the first label and the
    /// first outcome.
    pub fn declare_revision(&self, modeldeployment: &str, revision: &str, names: &[String]) {
        for reason in FeedbackRejection::ALL.map(FeedbackRejection::name) {
            let _ = self.rejected.get_or_create(&FeedbackReasonLabels {
                modeldeployment: modeldeployment.to_owned(),
                reason,
            });
        }
        self.models.lock().insert(modeldeployment.to_owned());
        for result in ["correct", "incorrect"] {
            let _ = self.labels.get_or_create(&result_labels(modeldeployment, revision, result));
        }
        for name in names {
            let labels = outcome_labels(modeldeployment, revision, name);
            let _ = (self.counts.get_or_create(&labels), self.sums.get_or_create(&labels));
            let _ = self.squares.get_or_create(&labels);
        }
        self.track_revision(modeldeployment, revision, names);
    }

    /// Counts predicted rows of a time in Unix seconds.
    pub fn count_predicted(
        &self,
        modeldeployment: &str,
        revision: &str,
        seconds: u64,
        rows: usize,
    ) {
        if rows > 0 {
            self.windows.update_window((modeldeployment, revision), seconds, |window| {
                window.predicted += rows as u64
            });
        }
    }

    /// Counts accepted feedback.
    pub fn count_accepted(&self, modeldeployment: &str, counted: &CountedFeedback) {
        let revision = counted.revision.as_str();
        for (result, n) in [("correct", counted.correct), ("incorrect", counted.incorrect)] {
            self.labels.get_or_create(&result_labels(modeldeployment, revision, result)).inc_by(n);
        }
        let mut names = &[][..];
        if let Some((name, value)) = &counted.outcome {
            let labels = outcome_labels(modeldeployment, revision, name);
            self.counts.get_or_create(&labels).inc();
            self.sums.get_or_create(&labels).inc_by(*value);
            self.squares.get_or_create(&labels).inc_by(value * value);
            names = std::slice::from_ref(name);
        }
        let rows = counted.correct + counted.incorrect;
        if rows > 0 {
            let of = FeedbackRevisionLabels {
                modeldeployment: modeldeployment.to_owned(),
                revision: revision.to_owned(),
            };
            self.ages.get_or_create(&of).observe(counted.age_seconds as f64);
            self.windows.update_window(
                (modeldeployment, revision),
                counted.predicted_at,
                |window| window.labelled += rows,
            );
        }
        self.track_revision(modeldeployment, revision, names);
    }

    /// Counts rejected feedback.
    pub fn count_rejected(&self, modeldeployment: &str, rejected: FeedbackRejection) {
        let because = FeedbackReasonLabels {
            modeldeployment: modeldeployment.to_owned(),
            reason: rejected.name(),
        };
        self.models.lock().insert(modeldeployment.to_owned());
        self.rejected.get_or_create(&because).inc();
    }

    /// Records that a revision has series, and removes the one without counts for the longest time
    /// when there are too many.
    fn track_revision(&self, modeldeployment: &str, revision: &str, names: &[String]) {
        let mut known = self.known.lock();
        let key = (modeldeployment.to_owned(), revision.to_owned());
        let fresh = || KnownRevision { last_counted: Instant::now(), outcomes: HashSet::new() };
        let is_new = !known.contains_key(&key);
        let of = known.entry(key).or_insert_with(fresh);
        of.last_counted = Instant::now();
        of.outcomes.extend(names.iter().cloned());
        if is_new {
            let siblings = || known.iter().filter(|((model, _), _)| model == modeldeployment);
            if siblings().count() > MAX_REVISIONS
                && let Some((key, _)) = siblings().min_by_key(|(_, known)| known.last_counted)
            {
                let key = key.clone();
                if let Some(gone) = known.remove(&key) {
                    self.remove_series(&key, &gone);
                }
            }
        }
    }

    /// Removes revisions without traffic (according to `serves`) for which nothing was counted
    /// within `ttl`.
    pub fn sweep(&self, now: Instant, ttl: Duration, serves: impl Fn(&str, &str) -> bool) {
        let mut known = self.known.lock();
        known.retain(|key, known| {
            let keep =
                now.saturating_duration_since(known.last_counted) < ttl || serves(&key.0, &key.1);
            if !keep {
                self.remove_series(key, known);
            }
            keep
        });
        let left: HashSet<&str> = known.keys().map(|(model, _)| model.as_str()).collect();
        let mut models = self.models.lock();
        models.retain(|model| {
            let keep = left.contains(model.as_str());
            if !keep {
                for reason in FeedbackRejection::ALL.map(FeedbackRejection::name) {
                    self.rejected
                        .remove(&FeedbackReasonLabels { modeldeployment: model.clone(), reason });
                }
            }
            keep
        });
    }

    fn remove_series(&self, (modeldeployment, revision): &(String, String), known: &KnownRevision) {
        for result in ["correct", "incorrect"] {
            self.labels.remove(&result_labels(modeldeployment, revision, result));
        }
        for name in &known.outcomes {
            let labels = outcome_labels(modeldeployment, revision, name);
            self.counts.remove(&labels);
            self.sums.remove(&labels);
            self.squares.remove(&labels);
        }
        self.ages.remove(&FeedbackRevisionLabels {
            modeldeployment: modeldeployment.clone(),
            revision: revision.clone(),
        });
        self.windows.remove_revision(modeldeployment, revision);
    }
}

fn outcome_labels(modeldeployment: &str, revision: &str, name: &str) -> FeedbackOutcomeLabels {
    FeedbackOutcomeLabels {
        modeldeployment: modeldeployment.to_owned(),
        revision: revision.to_owned(),
        outcome: name.to_owned(),
    }
}

fn result_labels(
    modeldeployment: &str,
    revision: &str,
    result: &'static str,
) -> FeedbackResultLabels {
    FeedbackResultLabels {
        modeldeployment: modeldeployment.to_owned(),
        revision: revision.to_owned(),
        result,
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(outcomes: &FeedbackMetrics) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        outcomes.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        text
    }

    #[tokio::test(start_paused = true)]
    async fn series_exist_at_zero_and_go_when_nothing_can_come_any_more() {
        let (outcomes, day) = (FeedbackMetrics::default(), Duration::from_secs(86_400));
        outcomes.declare_revision("digits", "aaa", &["revenue".to_owned()]);
        let of = r#"{modeldeployment="digits",revision="aaa""#;
        for line in [
            format!(r#"slipway_gateway_feedback_total{of},result="correct"}} 0"#),
            format!(r#"slipway_gateway_outcomes_total{of},outcome="revenue"}} 0"#),
            r#"slipway_gateway_feedback_rejected_total{modeldeployment="digits",reason="duplicate"} 0"#.to_owned(),
        ] {
            assert!(text(&outcomes).contains(&line), "{line} is not in {}", text(&outcomes));
        }
        outcomes.count_accepted(
            "digits",
            &CountedFeedback {
                revision: "bbb".into(),
                correct: 2,
                incorrect: 1,
                ..CountedFeedback::default()
            },
        );
        assert!(text(&outcomes).contains(r#"revision="bbb",result="correct"} 2"#));
        tokio::time::advance(day).await;
        outcomes.sweep(Instant::now(), day, |_, revision| revision == "aaa");
        assert!(text(&outcomes).contains("aaa") && !text(&outcomes).contains("bbb"));
        outcomes.sweep(Instant::now(), day, |_, _| false);
        assert!(!text(&outcomes).contains("digits"), "{}", text(&outcomes));
    }

    /// A gateway that has seen many revisions still counts for the serving ones.
    #[tokio::test(start_paused = true)]
    async fn the_revisions_that_are_silent_longest_make_room() {
        let outcomes = FeedbackMetrics::default();
        for n in 0..100 {
            tokio::time::advance(Duration::from_secs(1)).await;
            outcomes.count_accepted(
                "m",
                &CountedFeedback {
                    revision: format!("rev{n}"),
                    correct: 1,
                    ..CountedFeedback::default()
                },
            );
        }
        let text = text(&outcomes);
        assert_eq!(text.matches(r#"result="correct"} 1"#).count(), MAX_REVISIONS);
        assert!(text.contains(r#"revision="rev99""#) && !text.contains(r#"revision="rev0""#));
    }
}
