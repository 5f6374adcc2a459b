//! Counts of queries.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// One label `result`.
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
    /// What is registered.
    pub fn family(&self) -> Family<QueryResultLabel, Counter> {
        self.queries.clone()
    }

    /// Counts one query.
    pub fn count_query(&self, result: &'static str) {
        self.queries.get_or_create(&QueryResultLabel { result }).inc();
    }
}
