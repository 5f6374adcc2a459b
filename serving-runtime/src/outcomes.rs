//! What became of predictions besides their labels: engagement, conversion, revenue. As sums and counts, so that rates and means of an arm are
//! quotients of two counters over any window, and their standard errors too.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::feedback::Counted;

/// Windows in which predictions and their labels are counted, over the time in which feedback is taken.
pub const WINDOWS: usize = 12;

/// Seconds, from a minute to a week.
const AGES: [f64; 11] =
    [1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 4.0 * 3600.0, 86_400.0, 2.0 * 86_400.0, 4.0 * 86_400.0, 7.0 * 86_400.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    modeldeployment: String,
    revision: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    modeldeployment: String,
    revision: String,
}

type Sum = Counter<f64, AtomicU64>;

/// The metrics of what feedback brings.
#[derive(Debug)]
pub struct Outcomes {
    modeldeployment: String,
    counts: Family<Named, Counter>,
    sums: Family<Named, Sum>,
    squares: Family<Named, Sum>,
    ages: Family<Of, Histogram>,
    windows: Arc<Windows>,
}

impl Outcomes {
    /// None yet.
    pub fn new(modeldeployment: &str) -> Self {
        Self {
            modeldeployment: modeldeployment.to_owned(),
            counts: Family::default(),
            sums: Family::default(),
            squares: Family::default(),
            ages: Family::new_with_constructor(|| Histogram::new(AGES)),
            windows: Arc::new(Windows::new(modeldeployment)),
        }
    }

    /// Into the registry whose metrics carry their own revision: feedback counts for whoever predicted.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("slipway_runtime_outcomes", "Outcomes reported, by name", self.counts.clone());
        r.register("slipway_runtime_outcome_value", "Sum of the values of outcomes", self.sums.clone());
        r.register("slipway_runtime_outcome_value_squared", "Sum of their squares", self.squares.clone());
        r.register("slipway_runtime_feedback_age_seconds", "From a prediction to its label", self.ages.clone());
        r.register_collector(Box::new(Arc::clone(&self.windows)));
    }

    /// Creates the series of a revision at 0, so that `increase()` sees the first outcome; `ttl_seconds` is how long feedback is taken.
    pub fn declare(&self, revision: &str, names: &[String], ttl_seconds: u64) {
        for name in names {
            let labels = self.named(revision, name);
            let _ = (self.counts.get_or_create(&labels), self.sums.get_or_create(&labels));
            let _ = self.squares.get_or_create(&labels);
        }
        self.windows.set_length(ttl_seconds.div_ceil(WINDOWS as u64));
    }

    fn named(&self, revision: &str, name: &str) -> Named {
        Named { modeldeployment: self.modeldeployment.clone(), revision: revision.to_owned(), outcome: name.to_owned() }
    }

    /// Counts predicted rows, made at a time in Unix seconds.
    pub fn predicted(&self, revision: &str, seconds: u64, rows: usize) {
        if rows > 0 {
            self.windows.with(revision, seconds, |window| window.predicted += rows as u64);
        }
    }

    /// Counts accepted feedback.
    pub fn count(&self, counted: &Counted) {
        if let Some((name, value)) = &counted.outcome {
            let labels = self.named(&counted.revision, name);
            self.counts.get_or_create(&labels).inc();
            self.sums.get_or_create(&labels).inc_by(*value);
            self.squares.get_or_create(&labels).inc_by(value * value);
        }
        let rows = counted.correct + counted.incorrect;
        if rows > 0 {
            let of = Of { modeldeployment: self.modeldeployment.clone(), revision: counted.revision.clone() };
            self.ages.get_or_create(&of).observe(counted.age_seconds as f64);
            self.windows.with(&counted.revision, counted.made, |window| window.labelled += rows);
        }
    }
}

/// The rows that were predicted in a window, and those of them that have a label by now.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    number: u64,
    predicted: u64,
    labelled: u64,
}

/// Predictions and labels by the time of the prediction. Windows begin at multiples of their length, so those of all pods are the same and
/// can be added up.
#[derive(Debug)]
struct Windows {
    modeldeployment: String,
    state: Mutex<(u64, HashMap<String, [Window; WINDOWS]>)>,
}

impl Windows {
    fn new(modeldeployment: &str) -> Self {
        Self { modeldeployment: modeldeployment.to_owned(), state: Mutex::new((7200, HashMap::new())) }
    }

    fn set_length(&self, seconds: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = seconds.max(1);
    }

    /// The caller bounds the revisions.
    fn with(&self, revision: &str, seconds: u64, add: impl FnOnce(&mut Window)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (length, revisions) = &mut *state;
        let number = seconds / *length;
        if !revisions.contains_key(revision) {
            revisions.insert(revision.to_owned(), [Window::default(); WINDOWS]);
        }
        let Some(window) = revisions.get_mut(revision).and_then(|w| w.get_mut(number as usize % WINDOWS)) else {
            return;
        };
        if window.number < number {
            *window = Window { number, ..Window::default() };
        }
        // A label that is too late for its window has no place any more.
        if window.number == number {
            add(window);
        }
    }

    fn encode_at(&self, encoder: &mut DescriptorEncoder<'_>, now: u64) -> Result<(), std::fmt::Error> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (length, revisions) = &*state;
        let current = now / length;
        let find = |windows: &[Window; WINDOWS], age: usize| {
            let number = current.saturating_sub(age as u64);
            windows.iter().find(|w| w.number == number).copied().unwrap_or_default()
        };
        let series: Vec<_> = revisions
            .iter()
            .flat_map(|(revision, windows)| (0..WINDOWS).map(move |age| (revision, age, find(windows, age))))
            .collect();
        for (name, help, value) in [
            (
                "slipway_runtime_window_predicted_rows",
                "Rows predicted in the window that is so many windows old",
                (|w| w.predicted) as fn(&Window) -> u64,
            ),
            ("slipway_runtime_window_labelled_rows", "Those of them whose label came", |w| w.labelled),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (revision, age, window) in &series {
                let labels = [
                    ("modeldeployment", self.modeldeployment.clone()),
                    ("revision", (*revision).clone()),
                    ("window", format!("{age:02}")),
                ];
                let value = i64::try_from(value(window)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Length of a window";
        let family = encoder.encode_descriptor("slipway_runtime_window_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(*length).unwrap_or(i64::MAX)).encode(family)
    }
}

impl Collector for Windows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.encode_at(&mut encoder, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct At(Arc<Windows>, u64);

    impl Collector for At {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            self.0.encode_at(&mut encoder, self.1)
        }
    }

    #[test]
    fn labels_count_in_the_window_of_their_prediction() {
        let outcomes = Outcomes::new("m");
        outcomes.declare("r", &[], 1200);
        outcomes.predicted("r", 10_000, 8);
        outcomes.predicted("r", 10_100, 5);
        let counted = Counted { revision: "r".into(), correct: 1, incorrect: 1, made: 10_050, ..Counted::default() };
        outcomes.count(&counted);
        let at = |now: u64| {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(At(Arc::clone(&outcomes.windows), now)));
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let line = |kind: &str, window: &str, n: u64| {
            format!(
                "slipway_runtime_window_{kind}_rows{{modeldeployment=\"m\",revision=\"r\",window=\"{window}\"}} {n}\n"
            )
        };
        let text = at(10_150);
        for want in [
            line("predicted", "01", 8),
            line("labelled", "01", 2),
            line("predicted", "00", 5),
            line("labelled", "00", 0),
        ] {
            assert!(text.contains(&want), "{want} is not in\n{text}");
        }
        assert!(text.contains("slipway_runtime_window_seconds 100"));
        assert!(at(10_350).contains(&line("predicted", "03", 8)));
        assert!(!at(20_000).contains("} 8"), "what is too old is gone");
        // A window's place is taken by the one twelve later; a label for the old one is not counted for the new one.
        outcomes.predicted("r", 11_200, 3);
        outcomes.count(&counted);
        assert!(at(11_200).contains(&line("labelled", "00", 0)));
    }
}
