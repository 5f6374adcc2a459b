//! The metrics by which the operator judges this revision.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use slipway_chassis::metrics::new_histogram;
use slipway_contracts::metric_names::{self, family_name};
use slipway_runtime_cache::CacheMetrics;
use slipway_runtime_engine::batching::BatchingDecision;

use crate::observe::{Observer, ObserverCollector, ObserverSlot};
use crate::prediction::Predictions;
use crate::samples::SampleCounters;

/// Further classes are counted as `other`: the values of a label must be bounded, and a model may
/// return any number of classes.
const MAX_CLASSES: usize = 64;
const MAX_CLASS_LENGTH: usize = 64;
const OTHER_CLASS: &str = "other";

const LATENCY_BUCKETS: [f64; 17] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3,
    1.0, 2.5, 5.0, 10.0,
];
const CONFIDENCE_BUCKETS: [f64; 12] =
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

/// The status code that is counted when the client left before the answer.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelInfoLabels {
    model: String,
    version: String,
    digest: String,
}

/// The metrics of requests and predictions, and the registry of the process.
#[derive(Debug)]
pub struct RuntimeMetrics {
    registry: Registry,
    /// Labels of all series.
    labels: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    requests: Family<CodeLabel, Counter>,
    request_duration: Histogram,
    queue_duration: Histogram,
    inference_duration: Histogram,
    in_flight: Gauge,
    queued: Gauge,
    predictions: Family<ClassLabel, Counter>,
    classes: Mutex<HashSet<String>>,
    confidence: Histogram,
    nan_outputs: Counter,
    model_info: Family<ModelInfoLabels, Gauge>,
    batching: Family<ReasonLabel, Gauge>,
    model_load_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    observer: ObserverSlot,
    /// Counters of samples.
    pub samples: SampleCounters,
    /// Metrics of the caches.
    pub cache: CacheMetrics,
}

impl RuntimeMetrics {
    /// Registers all metrics, and creates series at 0 so that `increase()` sees their first
    /// increment.
    pub fn new(modeldeployment: &str, revision: &str) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            labels: [("modeldeployment", modeldeployment), ("revision", revision)]
                .map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value.to_owned())))
                .to_vec(),
            requests: Family::default(),
            request_duration: new_histogram(LATENCY_BUCKETS),
            queue_duration: new_histogram(LATENCY_BUCKETS),
            inference_duration: new_histogram(LATENCY_BUCKETS),
            in_flight: Gauge::default(),
            queued: Gauge::default(),
            predictions: Family::default(),
            classes: Mutex::default(),
            confidence: Histogram::new(CONFIDENCE_BUCKETS),
            nan_outputs: Counter::default(),
            model_info: Family::default(),
            batching: Family::default(),
            model_load_seconds: Gauge::default(),
            observer: ObserverSlot::default(),
            samples: SampleCounters::default(),
            cache: CacheMetrics::default(),
        };
        metrics.register();
        for code in [200, 400, 404, 413, 422, 429, CLIENT_CLOSED_REQUEST, 500, 503, 504] {
            let _ = metrics.requests.get_or_create(&CodeLabel { code });
        }
        metrics
    }

    /// A part of the registry whose series have the labels of this process.
    pub fn labelled_registry(&mut self) -> &mut Registry {
        self.registry.sub_registry_with_labels(self.labels.clone().into_iter())
    }

    fn register(&mut self) {
        let own = self.registry.sub_registry_with_labels(self.labels.clone().into_iter());
        own.register(
            "slipway_runtime_requests",
            "Inference requests by status, each exactly once",
            self.requests.clone(),
        );
        own.register(
            "slipway_runtime_request_duration_seconds",
            "From the head of an inference request to its answer",
            self.request_duration.clone(),
        );
        own.register(
            family_name(metric_names::RUNTIME_QUEUE_DURATION_BUCKET),
            "Time in the queue",
            self.queue_duration.clone(),
        );
        own.register(
            family_name(metric_names::RUNTIME_INFERENCE_DURATION_BUCKET),
            "Time in the engine, of the whole batch that the request was part of",
            self.inference_duration.clone(),
        );
        own.register(
            "slipway_runtime_requests_in_flight",
            "Inference requests being worked on",
            self.in_flight.clone(),
        );
        own.register(
            "slipway_runtime_requests_queued",
            "Inference requests that wait for a worker",
            self.queued.clone(),
        );
        own.register(
            family_name(metric_names::RUNTIME_PREDICTIONS_TOTAL),
            "Predicted rows by class",
            self.predictions.clone(),
        );
        own.register(
            family_name(metric_names::RUNTIME_PREDICTION_CONFIDENCE_SUM),
            "Highest probability of each row",
            self.confidence.clone(),
        );
        own.register(
            family_name(metric_names::RUNTIME_NAN_OUTPUTS_TOTAL),
            "Outputs that held a NaN or an infinity",
            self.nan_outputs.clone(),
        );
        own.register("slipway_runtime_model_info", "The loaded model", self.model_info.clone());
        own.register(
            "slipway_runtime_batching",
            "Whether requests run together (1) or each alone (0), with what led to it",
            self.batching.clone(),
        );
        own.register(
            "slipway_runtime_model_load_seconds",
            "From start to ready",
            self.model_load_seconds.clone(),
        );
        self.samples.register(own);
        own.register_collector(Box::new(ObserverCollector(Arc::clone(&self.observer))));
        self.cache.register(own);
    }

    /// Counts the start of a request; [`Self::finish_request`] counts its end.
    pub fn start_request(&self) -> &Self {
        self.in_flight.inc();
        self
    }

    /// Counts the end of a request.
    pub fn finish_request(&self, code: u16, took: Duration) {
        self.in_flight.dec();
        self.requests.get_or_create(&CodeLabel { code }).inc();
        self.request_duration.observe(took.as_secs_f64());
    }

    /// Records the queue and engine time of an answered request.
    pub fn record_durations(&self, queued: Duration, inference: Duration) {
        self.queue_duration.observe(queued.as_secs_f64());
        self.inference_duration.observe(inference.as_secs_f64());
    }

    pub fn record_predictions(&self, predictions: &Predictions) {
        for label in predictions.labels.iter().flatten() {
            let class = self.bounded_class(label.to_string());
            self.predictions.get_or_create(&ClassLabel { class }).inc();
        }
        for confidence in &predictions.confidences {
            self.confidence.observe(*confidence);
        }
        if predictions.non_finite > 0 {
            self.nan_outputs.inc_by(predictions.non_finite as u64);
        }
    }

    fn bounded_class(&self, class: String) -> String {
        let mut classes = self.classes.lock();
        if classes.contains(&class) {
            return class;
        }
        if classes.len() >= MAX_CLASSES || class.len() > MAX_CLASS_LENGTH {
            return OTHER_CLASS.to_owned();
        }
        classes.insert(class.clone());
        class
    }

    /// Exports the counts of `observer` from now on. Only the first observer of a process is
    /// exported, which is that of the pod's own model.
    pub fn set_observer(&self, observer: &Arc<Observer>) {
        let _ = self.observer.set(Arc::clone(observer));
    }

    /// Records which model was loaded, and how long it took.
    pub fn record_model(
        &self,
        model: &str,
        version: &str,
        digest: &str,
        batching: &BatchingDecision,
        took: Duration,
    ) {
        let info = ModelInfoLabels {
            model: model.to_owned(),
            version: version.to_owned(),
            digest: digest.to_owned(),
        };
        self.model_info.get_or_create(&info).set(1);
        self.batching
            .get_or_create(&ReasonLabel { reason: batching.cause.name() })
            .set(i64::from(batching.merged));
        self.model_load_seconds.set(took.as_secs_f64());
    }

    /// The answer to a scrape with these headers: content type and body; `queued` is the current
    /// length of the queue.
    pub fn exposition(&self, queued: usize, headers: &http::HeaderMap) -> (&'static str, Vec<u8>) {
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        // Our collectors do not fail.
        slipway_chassis::metrics::encode_metrics(&self.registry, headers).unwrap_or_default()
    }

    /// The metrics as text for Prometheus; `queued` is the current length of the queue.
    pub fn render(&self, queued: usize) -> String {
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use slipway_runtime_engine::batching::BatchingCause;

    use super::*;
    use crate::prediction::PredictedLabel;

    #[test]
    fn names_and_labels_are_those_of_the_contract() {
        let m = RuntimeMetrics::new("digits", "abc");
        m.start_request().finish_request(200, Duration::from_millis(1));
        m.record_durations(Duration::ZERO, Duration::from_micros(10));
        let batching = BatchingDecision {
            merged: true,
            cause: BatchingCause::Proven,
            reason: "the graph shows it".into(),
        };
        m.record_model("digits", "1", "sha256:00", &batching, Duration::from_secs(1));
        m.record_predictions(&Predictions {
            labels: vec![Some(PredictedLabel::Number(3))],
            confidences: vec![0.7],
            non_finite: 1,
            nan: 1,
        });
        let text = m.render(0);
        let base = "modeldeployment=\"digits\",revision=\"abc\"";
        for line in [
            format!("slipway_runtime_requests_total{{{base},code=\"200\"}} 1"),
            format!("slipway_runtime_requests_total{{{base},code=\"500\"}} 0"),
            format!("slipway_runtime_request_duration_seconds_bucket{{{base},le=\"0.0025\"}} 1"),
            format!("slipway_runtime_queue_duration_seconds_count{{{base}}} 1"),
            format!("slipway_runtime_inference_duration_seconds_count{{{base}}} 1"),
            format!("slipway_runtime_predictions_total{{{base},class=\"3\"}} 1"),
            format!("slipway_runtime_prediction_confidence_count{{{base}}} 1"),
            format!("slipway_runtime_nan_outputs_total{{{base}}} 1"),
            format!(
                "slipway_runtime_model_info{{{base},model=\"digits\",version=\"1\",digest=\"sha256:00\"}} 1"
            ),
            format!("slipway_runtime_batching{{{base},reason=\"proven\"}} 1"),
            format!("slipway_runtime_model_load_seconds{{{base}}} 1.0"),
        ] {
            assert!(text.contains(&line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn classes_are_bounded() {
        let m = RuntimeMetrics::new("d", "r");
        let labels = (0..200)
            .map(|n| Some(PredictedLabel::Number(n)))
            .chain([Some(PredictedLabel::Text("x".repeat(100)))])
            .collect();
        m.record_predictions(&Predictions { labels, confidences: vec![], non_finite: 0, nan: 0 });
        let text = m.render(0);
        assert_eq!(
            text.lines().filter(|l| l.starts_with("slipway_runtime_predictions_total")).count(),
            MAX_CLASSES + 1
        );
        assert!(text.contains("class=\"other\"} 137"));
    }
}
