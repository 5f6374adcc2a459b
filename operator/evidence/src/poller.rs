//! The metrics poller: reads the evidence that plans request, once per interval, and is idle
//! without requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use slipway_chassis::backoff::Jitter;
use slipway_cluster_views::{ModelMemory, ObjectOwner, ReconcileTrigger};
use slipway_judge::evidence::{EvidenceRequest, GateEvidence};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::PrometheusConnection;
use crate::query_metrics::QueryMetrics;
use crate::reader::EvidenceReader;

struct EvidencePoll {
    request: EvidenceRequest,
    evidence: Option<GateEvidence>,
    stop: CancellationToken,
}

type EvidencePolls = Mutex<HashMap<String, EvidencePoll>>;

/// Polls Prometheus for the evidence that plans request.
pub struct EvidencePoller {
    source: Arc<EvidenceReader>,
    requests: Arc<EvidencePolls>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl EvidencePoller {
    /// Creates a poller of a Prometheus; without one every reading reports its absence. `triggers`
    /// receives the ModelDeployments with new evidence.
    pub fn new(
        connection: Option<PrometheusConnection>,
        triggers: UnboundedSender<ReconcileTrigger>,
        metrics: Arc<QueryMetrics>,
        stop: CancellationToken,
    ) -> Self {
        let source = Arc::new(EvidenceReader::new(connection, triggers, metrics));
        Self { source, requests: Arc::default(), tasks: TaskTracker::new(), stop }
    }

    /// Sets the evidence request of a ModelDeployment's newest plan. An unchanged request has no
    /// effect; `None` stops the polling.
    pub fn set_request(
        &self,
        uid: &str,
        object: &ReconcileTrigger,
        request: Option<&EvidenceRequest>,
    ) {
        let mut requests = self.requests.lock();
        let running = requests.get(uid);
        if running.map(|p| &p.request) == request {
            return;
        }
        // Perhaps only the interval or the queries changed: evidence of the same generation stays
        // valid.
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
        self.requests.lock().get(uid)?.evidence.clone()
    }

    /// Stops all polling and waits for the tasks.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl ModelMemory for EvidencePoller {
    fn forget(&self, uid: &str, _: &ObjectOwner) {
        if let Some(former) = self.requests.lock().remove(uid) {
            former.stop.cancel();
        }
    }

    fn remembers(&self, uid: &str, _: &ObjectOwner) -> bool {
        self.requests.lock().contains_key(uid)
    }
}

/// Reads once an interval, for ever.
async fn poll_evidence(
    source: Arc<EvidenceReader>,
    requests: Arc<EvidencePolls>,
    uid: String,
    object: ReconcileTrigger,
    request: EvidenceRequest,
) {
    let interval = Duration::from_secs(u64::try_from(request.interval_seconds).unwrap_or(1).max(1));
    let age = Timestamp::now().duration_since(request.since);
    let age = Duration::try_from(age).unwrap_or_default();
    // A young window contains no data yet; a window older than the interval was already polled
    // before this process started.
    let mut wait = interval.saturating_sub(age);
    loop {
        // A tenth of jitter keeps ModelDeployments that were changed together from asking together.
        tokio::time::sleep(Jitter::Subtract(0.1).apply_random(wait)).await;
        let evidence =
            source.read_evidence(&request, object.namespace.as_deref().unwrap_or_default()).await;
        if let Some(polled) = requests.lock().get_mut(&uid)
            && polled.request == request
        {
            polled.evidence = Some(evidence);
        }
        source.trigger(&object);
        wait = interval;
    }
}

#[cfg(test)]
mod tests;
