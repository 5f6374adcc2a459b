//! The metrics of the gateway. Handles are created once, when a weight becomes known, so that
//! counting a request takes no lock.

mod labels;
mod requests;
mod series;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use slipway_gateway_feedback::outcomes::FeedbackMetrics;
use slipway_gateway_policy::config::ArmRole;
use slipway_gateway_policy::outcome::{RejectReason, RequestOutcome};

use self::labels::{KeyLabels, ModelLabels, RevisionLabels};
use self::requests::{ClientFamilies, ClientMetrics, RequestFamilies, RequestMetrics};
use self::series::{
    ArmCounterFamilies, ArmGaugeFamilies, ModelCounterFamilies, ModelGaugeFamilies,
};
pub use self::series::{ArmCounters, ArmGauges, ModelCounters, ModelGauges};

/// Value of the role label for requests at the preview address.
const PREVIEW: &str = "preview";

/// The registry and its families.
#[derive(Debug)]
pub struct GatewayMetrics {
    registry: Registry,
    requests: RequestFamilies,
    clients: ClientFamilies,
    model_counters: ModelCounterFamilies,
    arm_counters: ArmCounterFamilies,
    arm_gauges: ArmGaugeFamilies,
    model_gauges: ModelGaugeFamilies,
    keys: Family<KeyLabels, Gauge>,
    /// Requests for which there is no ModelDeployment.
    pub unrouted: Counter,
    /// Open client connections.
    pub connections: Gauge,
    /// Requests of all clients.
    pub totals: Arc<ClientTotals>,
    /// Metrics of feedback.
    pub feedback: FeedbackMetrics,
}

/// Handles of one arm in one role.
#[derive(Clone, Debug)]
pub struct ArmMetrics {
    requests: RequestMetrics,
    /// Counters of requests at the preview address; present while the arm is behind it.
    preview: Option<Box<RequestMetrics>>,
    /// Counters of the revision.
    pub counters: ArmCounters,
    /// Gauges of the revision.
    pub gauges: ArmGauges,
}

impl ArmMetrics {
    /// Counts one request and the duration of its answer. `took` is `None` for an answer from a
    /// cache: revisions are compared by their processing time, and a new one has cached nothing
    /// yet. Requests at the preview address are no evidence and are counted separately.
    pub fn count(&self, outcome: RequestOutcome, took: Option<Duration>, preview: bool) {
        match self.preview.as_deref().filter(|_| preview) {
            Some(preview) => preview.count(outcome, took),
            None => self.requests.count(outcome, took),
        }
    }
}

/// Requests of all clients since the start of the process; the operator reads them when it updates
/// gateways.
#[derive(Debug, Default)]
pub struct ClientTotals {
    /// All requests that ended.
    pub ended: AtomicU64,
    /// Requests that failed without a fault of the client.
    pub failed: AtomicU64,
}

/// Handles of one ModelDeployment.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    /// Totals over all ModelDeployments.
    totals: Arc<ClientTotals>,
    clients: ClientMetrics,
    pub counters: ModelCounters,
    pub gauges: ModelGauges,
}

impl ModelMetrics {
    /// Counts the outcome that a client received.
    pub fn count(&self, outcome: RequestOutcome) {
        self.clients.ended[outcome as usize].inc();
        self.totals.ended.fetch_add(1, Ordering::Relaxed);
        if outcome.is_failure() {
            self.totals.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that reached no arm.
    pub fn count_rejected(&self, reason: RejectReason) {
        self.clients.rejected[reason as usize].inc();
    }
}

impl GatewayMetrics {
    /// Creates and registers all families.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::default(),
            requests: RequestFamilies::default(),
            clients: ClientFamilies::default(),
            model_counters: ModelCounterFamilies::default(),
            arm_counters: ArmCounterFamilies::default(),
            arm_gauges: ArmGaugeFamilies::default(),
            model_gauges: ModelGaugeFamilies::default(),
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
        let registry = &mut self.registry;
        self.requests.register(registry);
        self.clients.register(registry);
        self.model_counters.register(registry);
        self.arm_counters.register(registry);
        self.arm_gauges.register(registry);
        self.model_gauges.register(registry);
        registry.register(
            "slipway_gateway_key",
            "1 while a file of the Secret slipway-keys is there",
            self.keys.clone(),
        );
        registry.register(
            "slipway_gateway_unrouted",
            "Requests without a ModelDeployment",
            self.unrouted.clone(),
        );
        registry.register(
            "slipway_gateway_connections",
            "Open client connections",
            self.connections.clone(),
        );
    }

    /// Sets whether a key file exists and has the size of a key.
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
        let labels = revision_labels(model, revision);
        ArmMetrics {
            requests: self.requests.handles(&labels, role.as_str()),
            preview: preview.then(|| Box::new(self.requests.handles(&labels, PREVIEW))),
            counters: self.arm_counters.handles(&labels),
            gauges: self.arm_gauges.handles(&labels),
        }
    }

    /// Handles of a ModelDeployment; its series exist from now on.
    pub fn model_handles(&self, model: &str) -> ModelMetrics {
        let labels = ModelLabels { modeldeployment: model.to_owned() };
        ModelMetrics {
            totals: Arc::clone(&self.totals),
            clients: self.clients.handles(model),
            counters: self.model_counters.handles(&labels),
            gauges: self.model_gauges.handles(&labels),
        }
    }

    /// Removes the series of a deleted revision, in all roles.
    pub fn forget_arm(&self, model: &str, revision: &str) {
        let labels = revision_labels(model, revision);
        for role in [ArmRole::Stable.as_str(), ArmRole::Candidate.as_str(), PREVIEW] {
            self.requests.remove(&labels, role);
        }
        self.arm_counters.remove(&labels);
        self.arm_gauges.remove(&labels);
    }

    /// Removes the series of a deleted ModelDeployment.
    pub fn forget_model(&self, model: &str) {
        self.clients.remove(model);
        let labels = ModelLabels { modeldeployment: model.to_owned() };
        self.model_counters.remove(&labels);
        self.model_gauges.remove(&labels);
    }

    /// All series in the format that the scraper's headers request: content type and body.
    ///
    /// # Errors
    /// When a metric cannot be written, which would be a bug.
    pub fn encode_for_scrape(
        &self,
        headers: &http::HeaderMap,
    ) -> Result<(&'static str, Vec<u8>), std::fmt::Error> {
        slipway_chassis::metrics::encode_metrics(&self.registry, headers)
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

fn revision_labels(model: &str, revision: &str) -> RevisionLabels {
    RevisionLabels { modeldeployment: model.to_owned(), revision: revision.to_owned() }
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

    #[test]
    fn series_of_the_preview_go_with_their_arm() {
        let metrics = GatewayMetrics::new();
        let _ = metrics.arm_handles("digits", "aaa", ArmRole::Candidate, true);
        assert!(metrics.encode_text().unwrap().contains(r#"role="preview""#));
        metrics.forget_arm("digits", "aaa");
        assert!(!metrics.encode_text().unwrap().contains("digits"));
    }
}
