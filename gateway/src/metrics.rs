//! What is counted. Handles are made once, when a weight becomes known, so that counting a request
//! takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::config::ArmRole;
use crate::feedback::outcomes::FeedbackMetrics;
use crate::outcome::{RejectReason, RequestOutcome};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    modeldeployment: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClientLabels {
    modeldeployment: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    modeldeployment: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KeyLabels {
    file: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RevisionLabels {
    modeldeployment: String,
    revision: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ArmLabels {
    modeldeployment: String,
    revision: String,
    role: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    modeldeployment: String,
    revision: String,
    role: &'static str,
    outcome: &'static str,
}

/// The role, as a label, of requests at the preview address.
const PREVIEW: &str = "preview";

type ArmHistograms = Family<ArmLabels, Histogram, fn() -> Histogram>;

/// The registry and its families.
#[derive(Debug)]
pub struct GatewayMetrics {
    registry: Registry,
    requests: Family<OutcomeLabels, Counter>,
    duration: ArmHistograms,
    clients: Family<ClientLabels, Counter>,
    rejected: Family<ReasonLabels, Counter>,
    unshielded: Family<ModelLabels, Counter>,
    shielded: Family<RevisionLabels, Counter>,
    shield_refused: Family<RevisionLabels, Counter>,
    spilled: Family<RevisionLabels, Counter>,
    retries: Family<RevisionLabels, Counter>,
    weight: Family<RevisionLabels, Gauge>,
    braked: Family<RevisionLabels, Gauge>,
    endpoints: Family<RevisionLabels, Gauge>,
    generation: Family<ModelLabels, Gauge>,
    keys: Family<KeyLabels, Gauge>,
    /// Requests for which there is no ModelDeployment.
    pub unrouted: Counter,
    /// Open client connections.
    pub connections: Gauge,
    /// Requests of all clients.
    pub totals: Arc<ClientTotals>,
    /// What feedback brings.
    pub feedback: FeedbackMetrics,
}

/// Handles of one arm in one role.
#[derive(Clone, Debug)]
pub struct ArmMetrics {
    requests: RequestMetrics,
    /// Of requests at the preview address; there while the arm is behind it.
    preview: Option<Box<RequestMetrics>>,
    /// Replays to the other arm.
    pub shielded: Counter,
    /// Failures that were passed on because the budget was spent.
    pub shield_refused: Counter,
    /// Requests of stable that it took while stable had no endpoint.
    pub spilled: Counter,
    /// Attempts on another pod.
    pub retries: Counter,
    /// The weight in force.
    pub weight: Gauge,
    /// 1 while the brake holds.
    pub braked: Gauge,
    /// Endpoints that are used.
    pub endpoints: Gauge,
}

/// Requests by their end, and the time of their answers.
#[derive(Clone, Debug)]
struct RequestMetrics {
    outcomes: [Counter; RequestOutcome::ALL.len()],
    duration: Histogram,
}

impl ArmMetrics {
    /// Counts one request, and what its answer took unless it is a kept one: revisions are compared
    /// by the time of their work, and one that is new has kept nothing yet. What somebody looks at
    /// by the preview address is no evidence, and counts apart.
    pub fn count(&self, outcome: RequestOutcome, took: Option<Duration>, preview: bool) {
        match self.preview.as_deref().filter(|_| preview) {
            Some(preview) => preview.count(outcome, took),
            None => self.requests.count(outcome, took),
        }
    }
}

impl RequestMetrics {
    fn count(&self, outcome: RequestOutcome, took: Option<Duration>) {
        self.outcomes[outcome as usize].inc();
        // Nobody answered, so there is no time of an answer.
        if let Some(took) = took
            .filter(|_| !matches!(outcome, RequestOutcome::Unavailable | RequestOutcome::Cancelled))
        {
            self.duration.observe(took.as_secs_f64());
        }
    }
}

/// Requests of all clients since the process began: the operator looks at them when it updates
/// gateways.
#[derive(Debug, Default)]
pub struct ClientTotals {
    /// All that ended.
    pub ended: AtomicU64,
    /// Those that failed by no fault of the client.
    pub failed: AtomicU64,
}

/// Handles of one ModelDeployment.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    /// Of all ModelDeployments together.
    totals: Arc<ClientTotals>,
    clients: [Counter; RequestOutcome::ALL.len()],
    rejected: [Counter; RejectReason::ALL.len()],
    /// Requests that had to be kept from the candidate, because they cannot be replayed.
    pub unshielded: Counter,
    /// The generation in force.
    pub generation: Gauge,
}

impl ModelMetrics {
    /// Counts what a client saw.
    pub fn count(&self, outcome: RequestOutcome) {
        self.clients[outcome as usize].inc();
        self.totals.ended.fetch_add(1, Ordering::Relaxed);
        if outcome.is_failure() {
            self.totals.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that reached no arm.
    pub fn count_rejected(&self, reason: RejectReason) {
        self.rejected[reason as usize].inc();
    }
}

fn duration_histogram() -> Histogram {
    // Classic buckets alone: a Prometheus that takes native ones leaves the classic ones of the
    // same histogram out, and gates read those.
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0,
    ])
}

impl GatewayMetrics {
    /// All families, registered.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            duration: Family::new_with_constructor(duration_histogram as fn() -> Histogram),
            clients: Family::default(),
            rejected: Family::default(),
            unshielded: Family::default(),
            shielded: Family::default(),
            shield_refused: Family::default(),
            spilled: Family::default(),
            retries: Family::default(),
            weight: Family::default(),
            braked: Family::default(),
            endpoints: Family::default(),
            generation: Family::default(),
            keys: Family::default(),
            unrouted: Counter::default(),
            connections: Gauge::default(),
            totals: Arc::default(),
            feedback: FeedbackMetrics::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        self.feedback.register(&mut self.registry);
        let registry = self.registry.sub_registry_with_prefix("slipway_gateway");
        registry.register(
            "requests",
            "Requests to an arm by outcome, each once",
            self.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time of an arm's own answer",
            self.duration.clone(),
        );
        registry.register(
            "client_requests",
            "What clients saw, each request once",
            self.clients.clone(),
        );
        registry.register("rejected", "Client requests that reached no arm", self.rejected.clone());
        registry.register(
            "unshielded",
            "Requests kept from the candidate: not replayable",
            self.unshielded.clone(),
        );
        registry.register(
            "shielded",
            "Requests that one arm failed, asked of the other",
            self.shielded.clone(),
        );
        registry.register(
            "shield_refused",
            "Failures passed on: budget spent",
            self.shield_refused.clone(),
        );
        registry.register(
            "spilled",
            "Requests that the candidate took for want of a pod of stable",
            self.spilled.clone(),
        );
        registry.register(
            "retries",
            "Attempts on another pod of the same arm",
            self.retries.clone(),
        );
        registry.register("weight_permille", "Weight in force", self.weight.clone());
        registry.register(
            "braked",
            "1 while this gateway keeps traffic from the candidate",
            self.braked.clone(),
        );
        registry.register("endpoints", "Endpoints in use", self.endpoints.clone());
        registry.register("generation", "Generation of weights in force", self.generation.clone());
        registry.register(
            "key",
            "1 while a file of the Secret slipway-keys is there",
            self.keys.clone(),
        );
        registry.register("unrouted", "Requests without a ModelDeployment", self.unrouted.clone());
        registry.register("connections", "Open client connections", self.connections.clone());
    }

    /// Whether a key file is there and has the size of a key.
    pub fn set_key_present(&self, file: &'static str, is_there: bool) {
        self.keys.get_or_create_owned(&KeyLabels { file }).set(i64::from(is_there));
    }

    /// Handles of an arm; its series exist from now on.
    pub fn arm_handles(
        &self,
        model: &str,
        revision: &str,
        role: ArmRole,
        preview: bool,
    ) -> ArmMetrics {
        let labels =
            RevisionLabels { modeldeployment: model.to_owned(), revision: revision.to_owned() };
        ArmMetrics {
            requests: self.request_handles(&labels, role.as_str()),
            preview: preview.then(|| Box::new(self.request_handles(&labels, PREVIEW))),
            shielded: self.shielded.get_or_create_owned(&labels),
            shield_refused: self.shield_refused.get_or_create_owned(&labels),
            spilled: self.spilled.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            weight: self.weight.get_or_create_owned(&labels),
            braked: self.braked.get_or_create_owned(&labels),
            endpoints: self.endpoints.get_or_create_owned(&labels),
        }
    }

    fn request_handles(&self, labels: &RevisionLabels, role: &'static str) -> RequestMetrics {
        let RevisionLabels { modeldeployment, revision } = labels;
        RequestMetrics {
            outcomes: RequestOutcome::ALL.map(|outcome| {
                let (modeldeployment, revision) = (modeldeployment.clone(), revision.clone());
                let labels =
                    OutcomeLabels { modeldeployment, revision, role, outcome: outcome.as_str() };
                self.requests.get_or_create_owned(&labels)
            }),
            duration: self.duration.get_or_create_owned(&ArmLabels {
                modeldeployment: modeldeployment.clone(),
                revision: revision.clone(),
                role,
            }),
        }
    }

    /// Handles of a ModelDeployment; its series exist from now on.
    pub fn model_handles(&self, model: &str) -> ModelMetrics {
        let labels = ModelLabels { modeldeployment: model.to_owned() };
        ModelMetrics {
            totals: Arc::clone(&self.totals),
            clients: RequestOutcome::ALL.map(|outcome| {
                let labels =
                    ClientLabels { modeldeployment: model.to_owned(), outcome: outcome.as_str() };
                self.clients.get_or_create_owned(&labels)
            }),
            rejected: RejectReason::ALL.map(|reason| {
                let labels =
                    ReasonLabels { modeldeployment: model.to_owned(), reason: reason.as_str() };
                self.rejected.get_or_create_owned(&labels)
            }),
            unshielded: self.unshielded.get_or_create_owned(&labels),
            generation: self.generation.get_or_create_owned(&labels),
        }
    }

    /// Drops the series of a revision that is gone, in all roles.
    pub fn forget_arm(&self, model: &str, revision: &str) {
        let (modeldeployment, revision) = (model.to_owned(), revision.to_owned());
        for role in [ArmRole::Stable, ArmRole::Candidate].map(ArmRole::as_str) {
            for outcome in RequestOutcome::ALL.map(RequestOutcome::as_str) {
                let (modeldeployment, revision) = (modeldeployment.clone(), revision.clone());
                self.requests.remove(&OutcomeLabels { modeldeployment, revision, role, outcome });
            }
            let (modeldeployment, revision) = (modeldeployment.clone(), revision.clone());
            self.duration.remove(&ArmLabels { modeldeployment, revision, role });
        }
        let labels = RevisionLabels { modeldeployment, revision };
        for family in [&self.shielded, &self.shield_refused, &self.spilled, &self.retries] {
            family.remove(&labels);
        }
        for family in [&self.weight, &self.braked, &self.endpoints] {
            family.remove(&labels);
        }
    }

    /// Drops the series of a ModelDeployment that is gone.
    pub fn forget_model(&self, model: &str) {
        let modeldeployment = model.to_owned();
        for outcome in RequestOutcome::ALL.map(RequestOutcome::as_str) {
            self.clients
                .remove(&ClientLabels { modeldeployment: modeldeployment.clone(), outcome });
        }
        for reason in RejectReason::ALL.map(RejectReason::as_str) {
            self.rejected
                .remove(&ReasonLabels { modeldeployment: modeldeployment.clone(), reason });
        }
        let labels = ModelLabels { modeldeployment };
        self.unshielded.remove(&labels);
        self.generation.remove(&labels);
    }

    /// All series, as the scraper with these headers wants them: content type and body.
    ///
    /// # Errors
    /// When a metric cannot be written, which would be a bug.
    pub fn encode_for_scrape(
        &self,
        headers: &http::HeaderMap,
    ) -> Result<(&'static str, Vec<u8>), std::fmt::Error> {
        slipway_telemetry::metrics::encode_metrics(&self.registry, headers)
    }

    /// All series as OpenMetrics text.
    ///
    /// # Errors
    /// When a metric cannot be written, which would be a bug.
    pub fn encode_text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_exist_at_zero_and_go_when_forgotten() {
        let metrics = GatewayMetrics::new();
        let _ = (
            metrics.model_handles("digits"),
            metrics.arm_handles("digits", "aaa", ArmRole::Candidate, false),
        );
        let text = metrics.encode_text().unwrap();
        for line in [
            r#"slipway_gateway_requests_total{modeldeployment="digits",revision="aaa",role="candidate",outcome="timeout"} 0"#,
            r#"slipway_gateway_client_requests_total{modeldeployment="digits",outcome="success"} 0"#,
            r#"slipway_gateway_shielded_total{modeldeployment="digits",revision="aaa"} 0"#,
            r#"slipway_gateway_weight_permille{modeldeployment="digits",revision="aaa"} 0"#,
            r#"slipway_gateway_generation{modeldeployment="digits"} 0"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("slipway_gateway_request_duration_seconds_count"));
        metrics.forget_arm("digits", "aaa");
        metrics.forget_model("digits");
        assert!(!metrics.encode_text().unwrap().contains("digits"));
    }
}
