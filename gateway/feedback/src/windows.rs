//! Predictions and labels by the time of the prediction.

use std::collections::HashMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use slipway_contracts::metric_names;

/// Number of windows, over the period in which feedback is accepted, in which predictions and their
/// labels are counted.
pub(super) const WINDOW_COUNT: usize = 12;

/// The rows predicted in a window, and how many of them have a label so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FeedbackWindow {
    number: u64,
    pub(super) predicted: u64,
    /// Number of predicted rows with a label.
    pub(super) labelled: u64,
}

type RevisionWindows = HashMap<String, [FeedbackWindow; WINDOW_COUNT]>;

/// Predictions and labels by the time of the prediction. Windows begin at multiples of their
/// length, so that the windows of all pods coincide and can be added up.
#[derive(Debug)]
pub(super) struct FeedbackWindows {
    /// The length of a window in seconds; the windows by ModelDeployment and revision.
    state: Mutex<(u64, HashMap<String, RevisionWindows>)>,
}

impl Default for FeedbackWindows {
    fn default() -> Self {
        Self { state: Mutex::new((7200, HashMap::new())) }
    }
}

impl FeedbackWindows {
    /// Sets how long feedback is accepted.
    pub(super) fn set_length(&self, ttl_seconds: u64) {
        self.state.lock().0 = ttl_seconds.div_ceil(WINDOW_COUNT as u64).max(1);
    }

    /// Removes the windows of a revision.
    pub(super) fn remove_revision(&self, modeldeployment: &str, revision: &str) {
        let mut state = self.state.lock();
        if let Some(revisions) = state.1.get_mut(modeldeployment) {
            revisions.remove(revision);
            if revisions.is_empty() {
                state.1.remove(modeldeployment);
            }
        }
    }

    /// Updates the window of a time, for a ModelDeployment and a revision. The caller limits the
    /// number of revisions.
    pub(super) fn update_window(
        &self,
        of: (&str, &str),
        seconds: u64,
        add: impl FnOnce(&mut FeedbackWindow),
    ) {
        let mut state = self.state.lock();
        let ((length, models), (modeldeployment, revision)) = (&mut *state, of);
        let number = seconds / *length;
        // Two lookups avoid an allocation for each prediction.
        if !models.get(modeldeployment).is_some_and(|revisions| revisions.contains_key(revision)) {
            let revisions = models.entry(modeldeployment.to_owned()).or_default();
            revisions.insert(revision.to_owned(), [FeedbackWindow::default(); WINDOW_COUNT]);
        }
        let windows =
            models.get_mut(modeldeployment).and_then(|revisions| revisions.get_mut(revision));
        let Some(window) =
            windows.and_then(|windows| windows.get_mut(number as usize % WINDOW_COUNT))
        else {
            return;
        };
        if window.number < number {
            *window = FeedbackWindow { number, ..FeedbackWindow::default() };
        }
        // A label that is too late for its window is dropped.
        if window.number == number {
            add(window);
        }
    }

    /// Writes the windows as of a time in Unix seconds.
    ///
    /// # Errors
    /// When the encoder fails.
    pub(super) fn encode_at(&self, encoder: &mut DescriptorEncoder<'_>, now: u64) -> fmt::Result {
        let state = self.state.lock();
        let (length, models) = &*state;
        let current = now / length;
        let find = |windows: &[FeedbackWindow; WINDOW_COUNT], age: usize| {
            let number = current.saturating_sub(age as u64);
            windows.iter().find(|w| w.number == number).copied().unwrap_or_default()
        };
        let all = models
            .iter()
            .flat_map(|(model, revisions)| revisions.iter().map(move |of| (model, of)));
        let series: Vec<_> = all
            .flat_map(|(model, (revision, windows))| {
                (0..WINDOW_COUNT).map(move |age| (model, revision, age, find(windows, age)))
            })
            .collect();
        for (name, help, value) in [
            (
                metric_names::GATEWAY_WINDOW_PREDICTED_ROWS,
                "Rows predicted in the window that is so many windows old",
                (|w| w.predicted) as fn(&FeedbackWindow) -> u64,
            ),
            (metric_names::GATEWAY_WINDOW_LABELLED_ROWS, "Those of them whose label came", |w| {
                w.labelled
            }),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (model, revision, age, window) in &series {
                let labels = [
                    ("modeldeployment", (*model).clone()),
                    ("revision", (*revision).clone()),
                    ("window", format!("{age:02}")),
                ];
                let value = i64::try_from(value(window)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Length of a window";
        let family = encoder.encode_descriptor(
            "slipway_gateway_window_seconds",
            help,
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(*length).unwrap_or(i64::MAX)).encode(family)
    }
}

impl Collector for FeedbackWindows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.encode_at(&mut encoder, now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct At(Arc<FeedbackWindows>, u64);

    impl Collector for At {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            self.0.encode_at(&mut encoder, self.1)
        }
    }

    #[test]
    fn labels_count_in_the_window_of_their_prediction() {
        let windows = Arc::new(FeedbackWindows::default());
        windows.set_length(1200);
        let predicted = |seconds, rows| {
            windows.update_window(("m", "r"), seconds, |window| window.predicted += rows)
        };
        let labelled = || windows.update_window(("m", "r"), 10_050, |window| window.labelled += 2);
        predicted(10_000, 8);
        predicted(10_100, 5);
        labelled();
        let at = |now: u64| {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(At(Arc::clone(&windows), now)));
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let line = |kind: &str, window: &str, n: u64| {
            format!(
                "slipway_gateway_window_{kind}_rows{{modeldeployment=\"m\",revision=\"r\",window=\"{window}\"}} {n}\n"
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
        assert!(text.contains("slipway_gateway_window_seconds 100"));
        assert!(at(10_350).contains(&line("predicted", "03", 8)));
        assert!(!at(20_000).contains("} 8"), "what is too old is gone");
        // A window's slot is reused by the one twelve windows later; a label for the old one is not
        // counted for the new one.
        predicted(11_200, 3);
        labelled();
        assert!(at(11_200).contains(&line("labelled", "00", 0)));
    }
}
