//! Queries Prometheus for all ModelDeployments, with a limit per namespace.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use slipway_chassis::error_chain;
use slipway_cluster_views::ReconcileTrigger;
use slipway_judge::evidence::{
    EvidenceQuery, EvidenceRequest, GateEvidence, GateQueries, GateReading,
};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use crate::connection::{PrometheusConnection, QUERY_TIMEOUT};
use crate::promql;
use crate::query_metrics::QueryMetrics;

/// Largest accepted body: some ten thousand series.
const MAX_BODY: usize = 4 << 20;
/// Maximum number of concurrent queries over all ModelDeployments.
const MAX_CONCURRENT: usize = 8;
/// Maximum number of concurrent queries per namespace, so that slow or many queries of one
/// namespace do not delay the analyses of others.
pub(crate) const MAX_PER_NAMESPACE: usize = 2;

/// Sends queries to Prometheus.
pub(crate) struct EvidenceReader {
    connection: Option<PrometheusConnection>,
    permits: Semaphore,
    /// Semaphores by namespace, only for namespaces with queries in progress.
    shares: Mutex<HashMap<String, Arc<Semaphore>>>,
    serial: AtomicU64,
    metrics: Arc<QueryMetrics>,
    triggers: UnboundedSender<ReconcileTrigger>,
}

/// The reading for a provider that does not answer, with the whole chain of causes, of which the
/// last is the most specific.
fn no_answer(error: &dyn std::error::Error) -> GateReading {
    promql::provider_down(error_chain(error))
}

impl EvidenceReader {
    /// Creates a reader of a Prometheus; without one every reading reports its absence.
    pub(crate) fn new(
        connection: Option<PrometheusConnection>,
        triggers: UnboundedSender<ReconcileTrigger>,
        metrics: Arc<QueryMetrics>,
    ) -> Self {
        // Starts at the current time, so that serials of an earlier process are not repeated.
        let first = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        Self {
            connection,
            permits: Semaphore::new(MAX_CONCURRENT),
            shares: Mutex::default(),
            serial: AtomicU64::new(first),
            metrics,
            triggers,
        }
    }

    /// Triggers a reconcile of a ModelDeployment with new evidence.
    pub(crate) fn trigger(&self, object: &ReconcileTrigger) {
        // The receiver is dropped only at shutdown.
        let _ = self.triggers.send(object.clone());
    }

    pub(crate) async fn read_evidence(
        &self,
        request: &EvidenceRequest,
        namespace: &str,
    ) -> GateEvidence {
        let now = Timestamp::now();
        let gates = join_all(
            request.gates.iter().map(|gate| self.read_gate(gate, request.since, now, namespace)),
        )
        .await;
        GateEvidence {
            generation: request.generation,
            taken_at: now,
            serial: self.serial.fetch_add(1, Ordering::Relaxed) + 1,
            gates: gates.into_iter().collect(),
        }
    }

    async fn read_gate(
        &self,
        gate: &GateQueries,
        since: Timestamp,
        now: Timestamp,
        namespace: &str,
    ) -> (String, GateReading) {
        let query = promql::with_window(promql::query_text(&gate.queries), since, now);
        let share = self.namespace_share(namespace);
        let reading = match (share.acquire().await, self.permits.acquire().await) {
            (Ok(_share), Ok(_permit)) => self.run_query(&gate.queries, query, namespace).await,
            _ => promql::provider_down("the operator is ending"),
        };
        self.metrics.count_query(match reading {
            GateReading::ProviderDown(_) => "provider_down",
            GateReading::NoData(_) => "no_data",
            _ => "ok",
        });
        (gate.gate.clone(), reading)
    }

    /// The semaphore of a namespace. Semaphores that no query holds are removed.
    fn namespace_share(&self, namespace: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock();
        shares.retain(|name, share| name == namespace || Arc::strong_count(share) > 1);
        let share = shares
            .entry(namespace.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_PER_NAMESPACE)));
        Arc::clone(share)
    }

    async fn run_query(
        &self,
        queries: &EvidenceQuery,
        query: String,
        namespace: &str,
    ) -> GateReading {
        let Some(connection) = &self.connection else {
            return promql::provider_down("the operator runs without --prometheus-url");
        };
        let query = match connection.scope_query(queries, query, namespace) {
            Ok(query) => query,
            Err(why) => return promql::no_data(format!("the query {why}")),
        };
        let client = match connection.client() {
            Ok(client) => client,
            Err(why) => return promql::provider_down(why),
        };
        let asked = async {
            let timeout = i64::try_from(QUERY_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
            let mut answer =
                client.query(query).timeout(timeout).post_raw().await.map_err(|e| no_answer(&e))?;
            let status = answer.status().as_u16();
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|e| no_answer(&e))? {
                if body.len() + chunk.len() > MAX_BODY {
                    return Err(promql::provider_down(format!(
                        "answer is larger than {MAX_BODY} bytes"
                    )));
                }
                body.extend_from_slice(&chunk);
            }
            Ok((status, body))
        };
        match asked.await {
            Ok((status, body)) => promql::parse_reading(queries, status, &body),
            Err(reading) => reading,
        }
    }
}
