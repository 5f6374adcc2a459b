//! Request counters by outcome: requests to an arm, and requests of clients.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use slipway_contracts::metric_names::{self, family_name};
use slipway_gateway_policy::outcome::{RejectReason, RequestOutcome};

use super::labels::{ArmLabels, ClientLabels, OutcomeLabels, ReasonLabels, RevisionLabels};

/// Request counters by outcome, and the histogram of answer times.
#[derive(Clone, Debug)]
pub(super) struct RequestMetrics {
    outcomes: [Counter; RequestOutcome::ALL.len()],
    duration: Histogram,
}

impl RequestMetrics {
    pub(super) fn count(&self, outcome: RequestOutcome, took: Option<Duration>) {
        self.outcomes[outcome as usize].inc();
        // Without an answer there is no answer time.
        if let Some(took) = took
            .filter(|_| !matches!(outcome, RequestOutcome::Unavailable | RequestOutcome::Cancelled))
        {
            self.duration.observe(took.as_secs_f64());
        }
    }
}

fn duration_histogram() -> Histogram {
    // Classic buckets only: a Prometheus that ingests native histograms drops the classic buckets
    // of the same histogram, which the gates query.
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0,
    ])
}

/// Families of [`RequestMetrics`].
#[derive(Debug)]
pub(super) struct RequestFamilies {
    requests: Family<OutcomeLabels, Counter>,
    duration: Family<ArmLabels, Histogram, fn() -> Histogram>,
}

impl Default for RequestFamilies {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(duration_histogram as fn() -> Histogram),
        }
    }
}

impl RequestFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            family_name(metric_names::GATEWAY_REQUESTS_TOTAL),
            "Requests to an arm by outcome, each once",
            self.requests.clone(),
        );
        registry.register(
            family_name(metric_names::GATEWAY_REQUEST_DURATION_BUCKET),
            "Time of an arm's own answer",
            self.duration.clone(),
        );
    }

    /// Handles of a revision in a role; the series exist from now on.
    pub(super) fn handles(&self, labels: &RevisionLabels, role: &'static str) -> RequestMetrics {
        let of = |outcome: RequestOutcome| outcome_labels(labels, role, outcome);
        RequestMetrics {
            outcomes: RequestOutcome::ALL
                .map(|outcome| self.requests.get_or_create_owned(&of(outcome))),
            duration: self.duration.get_or_create_owned(&arm_labels(labels, role)),
        }
    }

    pub(super) fn remove(&self, labels: &RevisionLabels, role: &'static str) {
        for outcome in RequestOutcome::ALL {
            self.requests.remove(&outcome_labels(labels, role, outcome));
        }
        self.duration.remove(&arm_labels(labels, role));
    }
}

fn arm_labels(labels: &RevisionLabels, role: &'static str) -> ArmLabels {
    let RevisionLabels { modeldeployment, revision } = labels.clone();
    ArmLabels { modeldeployment, revision, role }
}

fn outcome_labels(
    labels: &RevisionLabels,
    role: &'static str,
    outcome: RequestOutcome,
) -> OutcomeLabels {
    let RevisionLabels { modeldeployment, revision } = labels.clone();
    OutcomeLabels { modeldeployment, revision, role, outcome: outcome.as_str() }
}

/// Request counters of clients.
#[derive(Clone, Debug)]
pub(super) struct ClientMetrics {
    pub(super) ended: [Counter; RequestOutcome::ALL.len()],
    pub(super) rejected: [Counter; RejectReason::ALL.len()],
}

/// Families of [`ClientMetrics`].
#[derive(Debug, Default)]
pub(super) struct ClientFamilies {
    ended: Family<ClientLabels, Counter>,
    rejected: Family<ReasonLabels, Counter>,
}

impl ClientFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            family_name(metric_names::GATEWAY_CLIENT_REQUESTS_TOTAL),
            "What clients saw, each request once",
            self.ended.clone(),
        );
        registry.register(
            "slipway_gateway_rejected",
            "Client requests that reached no arm",
            self.rejected.clone(),
        );
    }

    /// Handles of a ModelDeployment; the series exist from now on.
    pub(super) fn handles(&self, model: &str) -> ClientMetrics {
        let ended = |outcome| self.ended.get_or_create_owned(&client_labels(model, outcome));
        let rejected = |reason| self.rejected.get_or_create_owned(&reason_labels(model, reason));
        ClientMetrics {
            ended: RequestOutcome::ALL.map(ended),
            rejected: RejectReason::ALL.map(rejected),
        }
    }

    pub(super) fn remove(&self, model: &str) {
        for outcome in RequestOutcome::ALL {
            self.ended.remove(&client_labels(model, outcome));
        }
        for reason in RejectReason::ALL {
            self.rejected.remove(&reason_labels(model, reason));
        }
    }
}

fn client_labels(model: &str, outcome: RequestOutcome) -> ClientLabels {
    ClientLabels { modeldeployment: model.to_owned(), outcome: outcome.as_str() }
}

fn reason_labels(model: &str, reason: RejectReason) -> ReasonLabels {
    ReasonLabels { modeldeployment: model.to_owned(), reason: reason.as_str() }
}
