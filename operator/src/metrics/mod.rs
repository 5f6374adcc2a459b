//! Metrics of the operator. All label values come from fixed sets, except those of objects that are
//! not in their normal state ([`conditions`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use slipway_contracts::metric_names::{self, family_name};
use slipway_crds::v1alpha1::RolloutOutcome;
use slipway_evidence::QueryMetrics;

use self::conditions::ConditionMetrics;

pub mod conditions;

/// Label set with the single label `result`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ResultLabel {
    /// `ok`, or the category of the error.
    pub result: &'static str,
}

/// Labels of a request to the API server.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// Verb as in RBAC, with `apply` for server-side apply.
    pub verb: &'static str,
    /// Resource, with its subresource.
    pub kind: &'static str,
    /// Class of the response status.
    pub result: &'static str,
}

/// Label set with the single label `outcome`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// How a rollout ended.
    pub outcome: &'static str,
}

/// Label set of a gateway. Prometheus sets `namespace` to the operator's own namespace, hence the
/// longer name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct GatewayLabel {
    pub gateway_namespace: String,
}

/// All metrics of the operator.
pub struct OperatorMetrics {
    registry: Registry,
    /// Reconciles by result.
    pub reconciles: Family<ResultLabel, Counter>,
    /// Duration of reconciles in seconds.
    pub reconcile_duration: Histogram,
    /// Requests to the API server.
    pub api_requests: Family<RequestLabels, Counter>,
    /// Rollouts that ended, by outcome.
    pub rollouts: Family<OutcomeLabel, Counter>,
    /// Queries to Prometheus by result.
    pub queries: Arc<QueryMetrics>,
    /// Open streams to gateway pods.
    pub gateway_streams: Gauge,
    /// 1 while this process leads.
    pub leader: Gauge,
    /// Namespaces with ModelDeployments that another operator holds.
    pub namespaces_of_others: Gauge,
    /// Events that could not be published.
    pub events_lost: Counter,
    /// Watches that ended with an error and were restarted.
    pub watch_errors: Counter<u64, AtomicU64>,
    /// Conditions of ModelDeployments that are not in their normal state.
    pub conditions: ConditionMetrics,
    /// Gateways that perform worse since their update.
    gateway_trouble: Family<GatewayLabel, Gauge>,
    /// Namespaces in `gateway_trouble`.
    troubles: Mutex<BTreeSet<String>>,
}

impl Default for OperatorMetrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            reconciles: Family::default(),
            reconcile_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            api_requests: Family::default(),
            rollouts: Family::default(),
            queries: Arc::default(),
            gateway_streams: Gauge::default(),
            leader: Gauge::default(),
            namespaces_of_others: Gauge::default(),
            events_lost: Counter::default(),
            watch_errors: Counter::default(),
            conditions: ConditionMetrics::default(),
            gateway_trouble: Family::default(),
            troubles: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl OperatorMetrics {
    fn register(&mut self) {
        self.register_work();
        self.register_state();
    }

    fn register_work(&mut self) {
        let r = &mut self.registry;
        r.register(
            family_name(metric_names::OPERATOR_RECONCILES_TOTAL),
            "Reconciles by result",
            self.reconciles.clone(),
        );
        r.register(
            "slipway_operator_reconcile_duration_seconds",
            "Time of a reconcile",
            self.reconcile_duration.clone(),
        );
        r.register(
            "slipway_operator_api_requests",
            "Requests to the Kubernetes API server",
            self.api_requests.clone(),
        );
        r.register(
            family_name(metric_names::OPERATOR_ROLLOUTS_TOTAL),
            "Rollouts that ended, by outcome",
            self.rollouts.clone(),
        );
        r.register(
            family_name(metric_names::OPERATOR_PROMETHEUS_QUERIES_TOTAL),
            "Queries to Prometheus by result",
            self.queries.family(),
        );
    }

    fn register_state(&mut self) {
        let r = &mut self.registry;
        r.register(
            "slipway_operator_gateway_streams",
            "Streams to gateway pods that stand",
            self.gateway_streams.clone(),
        );
        r.register(
            metric_names::OPERATOR_LEADER,
            "Whether this process leads",
            self.leader.clone(),
        );
        let help = "Namespaces with ModelDeployments that another operator looks after";
        r.register(
            "slipway_operator_namespaces_of_others",
            help,
            self.namespaces_of_others.clone(),
        );
        r.register(
            "slipway_operator_events_lost",
            "Events that could not be published",
            self.events_lost.clone(),
        );
        r.register(
            family_name(metric_names::OPERATOR_WATCH_ERRORS_TOTAL),
            "Watches that ended with an error",
            self.watch_errors.clone(),
        );
        let help = "Conditions of ModelDeployments that are not as they are at rest";
        r.register(metric_names::OPERATOR_CONDITION, help, self.conditions.family());
        let help = "Gateways that do worse since they were updated, by their namespace";
        r.register(metric_names::OPERATOR_GATEWAY_TROUBLE, help, self.gateway_trouble.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("slipway_operator_build", "Version of the operator", build);
    }

    /// Exports the gateways that perform worse since their update, and logs each new one.
    pub fn show_gateway_troubles(&self, troubles: &BTreeMap<String, String>) {
        let label = |namespace: &String| GatewayLabel { gateway_namespace: namespace.clone() };
        let mut shown = self.troubles.lock();
        for gone in shown.iter().filter(|namespace| !troubles.contains_key(*namespace)) {
            self.gateway_trouble.remove(&label(gone));
            tracing::info!(namespace = gone, "the gateway does as well as before it was updated");
        }
        for (namespace, why) in troubles {
            self.gateway_trouble.get_or_create(&label(namespace)).set(1);
            if !shown.contains(namespace) {
                tracing::warn!(
                    namespace,
                    why,
                    "the gateway does worse since it was updated: no further ones are"
                );
            }
        }
        *shown = troubles.keys().cloned().collect();
    }

    pub fn count_reconcile(&self, result: &'static str, seconds: f64) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.reconcile_duration.observe(seconds);
    }

    /// Counts one rollout that ended.
    pub fn count_rollout(&self, outcome: RolloutOutcome) {
        let outcome = match outcome {
            RolloutOutcome::Promoted => "promoted",
            RolloutOutcome::RolledBack => "rolled_back",
            RolloutOutcome::Aborted => "aborted",
            RolloutOutcome::Superseded => "superseded",
        };
        self.rollouts.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts one request to the API server.
    pub fn count_request(&self, verb: &'static str, kind: &'static str, result: &'static str) {
        self.api_requests.get_or_create(&RequestLabels { verb, kind, result }).inc();
    }

    /// All metrics in the text format.
    pub fn encode_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_documentation() {
        let metrics = OperatorMetrics::default();
        metrics.count_reconcile("ok", 0.01);
        metrics.count_request("apply", "replicasets", "ok");
        metrics.queries.count_query("ok");
        metrics.count_rollout(RolloutOutcome::RolledBack);
        let text = metrics.encode_text();
        for line in [
            "slipway_operator_reconciles_total{result=\"ok\"} 1",
            "slipway_operator_api_requests_total{verb=\"apply\",kind=\"replicasets\",result=\"ok\"} 1",
            "slipway_operator_prometheus_queries_total{result=\"ok\"} 1",
            "slipway_operator_rollouts_total{outcome=\"rolled_back\"} 1",
            "slipway_operator_reconcile_duration_seconds_count 1",
            "slipway_operator_gateway_streams 0",
            "slipway_operator_leader 0",
            "slipway_operator_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
