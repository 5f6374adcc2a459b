//! The metrics poller: reads the evidence that plans ask for, once an interval, and rests when none
//! asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use slipway_core::evidence::{
    EvidenceQuery, EvidenceRequest, GateEvidence, GateQueries, GateReading,
};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::error_chain;
use crate::metrics::OperatorMetrics;
use crate::model_watch::GuardedModel;
use crate::prometheus::{PrometheusConnection, QUERY_TIMEOUT};
use crate::promql;

/// Largest body that is read: some ten thousand series.
const MAX_BODY: usize = 4 << 20;
/// Queries at one time, over all ModelDeployments.
const MAX_CONCURRENT: usize = 8;
/// Queries of one namespace at one time: whose queries are slow, or many, does not hold up the
/// others' judges.
const MAX_PER_NAMESPACE: usize = 2;

/// Asks Prometheus.
struct EvidenceReader {
    connection: Option<PrometheusConnection>,
    permits: Semaphore,
    /// By namespace; of those that ask.
    shares: Mutex<HashMap<String, Arc<Semaphore>>>,
    serial: AtomicU64,
    metrics: Arc<OperatorMetrics>,
    triggers: UnboundedSender<ObjectRef<GuardedModel>>,
}

struct EvidencePoll {
    request: EvidenceRequest,
    evidence: Option<GateEvidence>,
    stop: CancellationToken,
}

type EvidencePolls = Mutex<HashMap<String, EvidencePoll>>;

/// The poller.
pub struct EvidencePoller {
    source: Arc<EvidenceReader>,
    requests: Arc<EvidencePolls>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl EvidencePoller {
    /// A poller of a Prometheus; without one every reading says so. `triggers` gets the
    /// ModelDeployments that have new evidence.
    pub fn new(
        connection: Option<PrometheusConnection>,
        triggers: UnboundedSender<ObjectRef<GuardedModel>>,
        metrics: Arc<OperatorMetrics>,
        stop: CancellationToken,
    ) -> Self {
        let permits = Semaphore::new(MAX_CONCURRENT);
        // A serial that a process before this one gave must not come again.
        let first = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let source = Arc::new(EvidenceReader {
            connection,
            permits,
            shares: Mutex::default(),
            serial: AtomicU64::new(first),
            metrics,
            triggers,
        });
        Self { source, requests: Arc::default(), tasks: TaskTracker::new(), stop }
    }

    /// Notes what the newest plan of a ModelDeployment asks for. The same request again changes
    /// nothing; none lets the poller rest.
    pub fn set_request(
        &self,
        uid: &str,
        object: &ObjectRef<GuardedModel>,
        request: Option<&EvidenceRequest>,
    ) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let running = requests.get(uid);
        if running.map(|p| &p.request) == request {
            return;
        }
        // Only the interval or the queries may have changed: evidence of the same generation stays
        // good.
        let kept = running
            .and_then(|p| p.evidence.clone())
            .filter(|e| Some(e.generation) == request.map(|r| r.generation));
        if let Some(former) = requests.remove(uid) {
            former.stop.cancel();
        }
        let Some(request) = request else { return };
        let stop = self.stop.child_token();
        requests.insert(
            uid.to_owned(),
            EvidencePoll { request: request.clone(), evidence: kept, stop: stop.clone() },
        );
        drop(requests);
        let task = poll_evidence(
            Arc::clone(&self.source),
            Arc::clone(&self.requests),
            uid.to_owned(),
            object.clone(),
            request.clone(),
        );
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// The newest evidence of a ModelDeployment.
    pub fn evidence(&self, uid: &str) -> Option<GateEvidence> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).get(uid)?.evidence.clone()
    }

    /// Ends all polling and waits for the tasks.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The provider does not answer: the whole chain of reasons, of which the last says most.
fn no_answer(error: &dyn std::error::Error) -> GateReading {
    promql::provider_down(error_chain(error))
}

/// Reads once an interval, for ever.
async fn poll_evidence(
    source: Arc<EvidenceReader>,
    requests: Arc<EvidencePolls>,
    uid: String,
    object: ObjectRef<GuardedModel>,
    request: EvidenceRequest,
) {
    let interval = Duration::from_secs(u64::try_from(request.interval_seconds).unwrap_or(1).max(1));
    let age = Timestamp::now().duration_since(request.since);
    let age = Duration::try_from(age).unwrap_or_default();
    // A young window has nothing to say yet; one that is older than the interval was polled by a
    // process before this one.
    let mut wait = interval.saturating_sub(age);
    loop {
        // A tenth of jitter keeps ModelDeployments that were changed together from asking together.
        tokio::time::sleep(wait.mul_f64(0.9 + 0.1 * rand::random::<f64>())).await;
        let evidence =
            source.read_evidence(&request, object.namespace.as_deref().unwrap_or_default()).await;
        if let Some(polled) = requests.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&uid)
            && polled.request == request
        {
            polled.evidence = Some(evidence);
        }
        // The receiver is gone only when the operator ends.
        let _ = source.triggers.send(object.clone());
        wait = interval;
    }
}

impl EvidenceReader {
    async fn read_evidence(&self, request: &EvidenceRequest, namespace: &str) -> GateEvidence {
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

    /// The share of a namespace. Shares that nobody holds are forgotten.
    fn namespace_share(&self, namespace: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
#[path = "metrics_source_tests.rs"]
mod tests;
