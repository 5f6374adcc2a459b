//! Counts queries to Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Label set with the single label `result`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct QueryResultLabel {
    /// `ok`, or why there is no reading.
    pub result: &'static str,
}

/// Queries to Prometheus by result.
#[derive(Debug, Default)]
pub struct QueryMetrics {
    queries: Family<QueryResultLabel, Counter>,
}

impl QueryMetrics {
    /// The metric family to register.
    pub fn family(&self) -> Family<QueryResultLabel, Counter> {
        self.queries.clone()
    }

    pub fn count_query(&self, result: &'static str) {
        self.queries.get_or_create(&QueryResultLabel { result }).inc();
    }
}
