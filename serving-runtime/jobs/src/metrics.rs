//! Metrics of jobs.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use slipway_contracts::metric_names;
use slipway_runtime_queue::queue::QueueLag;

const DURATION_BUCKETS: [f64; 14] =
    [1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobOutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueStateLabels {
    state: String,
}

/// Outcomes of a submission.
pub const SUBMISSION_OUTCOMES: [&str; 6] =
    ["accepted", "duplicate", "conflict", "full", "invalid", "unavailable"];
/// Outcomes of a delivery.
pub const DELIVERY_OUTCOMES: [&str; 8] =
    ["succeeded", "failed", "dead", "expired", "duplicate", "retried", "released", "lost"];
/// Outcomes of an attempt at a callback.
pub const CALLBACK_OUTCOMES: [&str; 3] = ["delivered", "retried", "dead"];
/// Totals that the queue itself counts.
const TOTALS: [&str; 7] =
    ["enqueued", "succeeded", "failed", "dead", "expired", "cancelled", "duplicate"];

/// The metrics of jobs. Series exist once a queue is configured.
#[derive(Debug, Clone)]
pub struct JobMetrics {
    submissions: Family<JobOutcomeLabels, Counter>,
    deliveries: Family<JobOutcomeLabels, Counter>,
    duration: Histogram,
    running: Gauge,
    callbacks: Family<JobOutcomeLabels, Counter>,
    callback_duration: Histogram,
    jobs: Family<QueueStateLabels, Gauge>,
    age: Family<QueueStateLabels, Gauge<f64, AtomicU64>>,
    up: Gauge,
}

impl Default for JobMetrics {
    fn default() -> Self {
        Self {
            submissions: Family::default(),
            deliveries: Family::default(),
            duration: Histogram::new(DURATION_BUCKETS),
            running: Gauge::default(),
            callbacks: Family::default(),
            callback_duration: Histogram::new(DURATION_BUCKETS),
            jobs: Family::default(),
            age: Family::default(),
            up: Gauge::default(),
        }
    }
}

impl JobMetrics {
    pub fn register(&self, to: &mut Registry) {
        let name = |n: &str| format!("slipway_runtime_{n}");
        to.register(
            name("jobs_submitted"),
            "Jobs sent to this server by what became of them",
            self.submissions.clone(),
        );
        to.register(
            name("jobs"),
            "Deliveries of jobs to this worker by outcome, each exactly once",
            self.deliveries.clone(),
        );
        to.register(name("job_duration_seconds"), "One attempt at a job", self.duration.clone());
        to.register(name("jobs_running"), "Jobs that this worker holds", self.running.clone());
        to.register(name("callbacks"), "Attempts at callbacks by outcome", self.callbacks.clone());
        to.register(
            name("callback_duration_seconds"),
            "One attempt at a callback",
            self.callback_duration.clone(),
        );
        to.register(
            metric_names::RUNTIME_QUEUE_JOBS,
            "The whole queue: jobs waiting and taken, callbacks to be made, and what became of all so far",
            self.jobs.clone(),
        );
        to.register(
            metric_names::RUNTIME_QUEUE_OLDEST_AGE,
            "Age of the oldest job in the queue, and how late the first callback is",
            self.age.clone(),
        );
        to.register(
            metric_names::RUNTIME_QUEUE_UP,
            "Whether the queue answered when it was asked last",
            self.up.clone(),
        );
    }

    /// Creates the series at 0, so that `increase()` sees their first increment.
    pub fn init_series(&self) {
        for outcome in SUBMISSION_OUTCOMES {
            let _ = self.submissions.get_or_create(&JobOutcomeLabels { outcome });
        }
        for outcome in DELIVERY_OUTCOMES {
            let _ = self.deliveries.get_or_create(&JobOutcomeLabels { outcome });
        }
        for outcome in CALLBACK_OUTCOMES {
            let _ = self.callbacks.get_or_create(&JobOutcomeLabels { outcome });
        }
    }

    pub fn count_submission(&self, outcome: &'static str) {
        self.submissions.get_or_create(&JobOutcomeLabels { outcome }).inc();
    }

    /// Adds to the number of running deliveries.
    pub fn add_running(&self, n: usize) {
        self.running.inc_by(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// Counts the end of a delivery.
    pub fn record_delivery(&self, outcome: &'static str, took: Duration) {
        self.running.dec();
        self.deliveries.get_or_create(&JobOutcomeLabels { outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts an attempt at a callback.
    pub fn record_callback(&self, outcome: &'static str, took: Duration) {
        self.callbacks.get_or_create(&JobOutcomeLabels { outcome }).inc();
        self.callback_duration.observe(took.as_secs_f64());
    }

    /// Sets the gauges of waiting jobs. Without an answer of the queue they are cleared, because an
    /// outdated number would scale workers by the past.
    pub fn set_lag(&self, lag: Option<&QueueLag>) {
        self.up.set(i64::from(lag.is_some()));
        let Some(lag) = lag else {
            self.jobs.clear();
            self.age.clear();
            return;
        };
        let set = |state: &str, n: u64| {
            self.jobs
                .get_or_create(&QueueStateLabels { state: state.to_owned() })
                .set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        set("waiting", lag.waiting);
        set("taken", lag.taken);
        set("callbacks", lag.callbacks);
        for name in TOTALS {
            set(name, lag.totals.get(name).copied().unwrap_or(0));
        }
        for (state, millis) in [("jobs", lag.oldest), ("callbacks", lag.callbacks_late)] {
            self.age
                .get_or_create(&QueueStateLabels { state: state.to_owned() })
                .set(Duration::from_millis(millis).as_secs_f64());
        }
    }
}
