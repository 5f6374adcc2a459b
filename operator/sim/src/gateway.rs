//! Gateways: they watch the weights with a lag, send requests, count them, trip the brake, crash
//! and restart.

use jiff::{SignedDuration, Timestamp};
use slipway_contracts::state::BrakeTrip;
use slipway_core::observed::{GatewayPod, GatewayReport, UnreachableGateway};
use slipway_crds::v1alpha1::{RevisionRole, TrafficBackend, TrafficStatus};

use crate::clock::START;
use crate::cluster::SimulatedCluster;
use crate::metrics::SimulatedMetrics;
use crate::rng::SeededRng;

/// Requests to one gateway per second.
const REQUESTS: u64 = 60;

/// A gateway pod.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedGateway {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// The weights that it applies.
    pub(crate) applied_traffic: Option<TrafficStatus>,
    /// Since when it applies them, in seconds.
    pub(crate) applied_at: i64,
    report: GatewayReport,
    /// UID of the ModelDeployment of the weights. Another ModelDeployment of the same name keeps
    /// the weights until it has its own.
    uid: Option<String>,
    /// The last requests to the candidate: whether each failed.
    recent_failures: Vec<bool>,
    ready_at: i64,
    /// Lag of its watch in seconds.
    pub(crate) lag: i64,
    /// Time until which the operator cannot reach it, in seconds.
    pub(crate) unreachable_until: i64,
    pub(crate) unreachable_since: i64,
}

impl SimulatedGateway {
    pub(crate) fn new(name: String, ready_at: i64) -> Self {
        Self {
            name,
            ready: false,
            applied_traffic: None,
            applied_at: 0,
            report: GatewayReport::default(),
            uid: None,
            recent_failures: Vec::new(),
            ready_at,
            lag: 1,
            unreachable_until: 0,
            unreachable_since: 0,
        }
    }

    /// The pod as the operator observes it.
    pub(crate) fn observed_pod(&self, now: i64) -> GatewayPod {
        let report = (now >= self.unreachable_until && self.applied_traffic.is_some())
            .then(|| self.report.clone());
        let since = START + SignedDuration::from_secs(self.unreachable_since);
        let lost =
            || UnreachableGateway { since, error: "192.0.2.1:9091: no answer in time".to_owned() };
        GatewayPod {
            name: self.name.clone(),
            ready: self.ready,
            report,
            unreachable: (now < self.unreachable_until).then(lost),
        }
    }

    /// Simulates one second.
    pub(crate) fn tick(
        &mut self,
        now: i64,
        clock: Timestamp,
        cluster: &SimulatedCluster,
        metrics: &mut SimulatedMetrics,
        rng: &mut SeededRng,
    ) {
        self.watch_status(now, cluster);
        if !self.ready && now >= self.ready_at {
            self.ready = true;
        }
        if self.ready {
            self.send_requests(clock, cluster, metrics, rng);
        }
    }

    /// Applies new weights. A ModelDeployment without weights keeps the last ones.
    fn watch_status(&mut self, now: i64, cluster: &SimulatedCluster) {
        let uid = &cluster.object.metadata.uid;
        let another = self.uid != *uid;
        if another {
            self.uid.clone_from(uid);
            self.report = GatewayReport::default();
            self.recent_failures.clear();
        }
        let Some(traffic) =
            cluster.object.status.as_ref().and_then(|status| status.traffic.as_ref())
        else {
            return;
        };
        let starts = self.applied_traffic.is_none();
        let current = self.applied_traffic.as_ref().map(|it| (it.generation, &it.backends));
        if (current == Some((traffic.generation, &traffic.backends))
            && self.report.generation == traffic.generation)
            || (!starts && now < cluster.weights_at + self.lag)
        {
            return;
        }
        let keep = self.report.brake.take().filter(|brake| {
            let newer = traffic.generation.saturating_sub(brake.generation);
            let weight = traffic
                .backends
                .iter()
                .find(|it| it.revision == brake.revision)
                .map_or(0, |it| it.weight_permille);
            newer <= 0 || (newer == 1 && weight > 0)
        });
        let in_flight = std::mem::take(&mut self.report.in_flight);
        self.report = GatewayReport {
            generation: traffic.generation,
            brake: keep,
            in_flight,
            ..GatewayReport::default()
        };
        self.recent_failures.clear();
        self.applied_traffic = Some(traffic.clone());
        self.applied_at = now;
    }

    fn send_requests(
        &mut self,
        clock: Timestamp,
        cluster: &SimulatedCluster,
        metrics: &mut SimulatedMetrics,
        rng: &mut SeededRng,
    ) {
        let Some(applied) = self.applied_traffic.clone() else { return };
        // Requests that began before the weight was removed complete in their own time.
        let serving =
            |revision: &String| applied.backends.iter().any(|it| it.revision == *revision);
        self.report.in_flight.retain(|revision, _| serving(revision) || rng.chance(0.8));
        for backend in &applied.backends {
            let braked =
                self.report.brake.as_ref().is_some_and(|brake| brake.revision == backend.revision);
            let exact = REQUESTS as f64 * f64::from(backend.weight_permille) / 1000.0;
            let count =
                if braked { 0 } else { exact as u64 + u64::from(rng.chance(exact.fract())) };
            self.send_to_arm(clock, cluster, metrics, rng, backend, count);
        }
    }

    fn send_to_arm(
        &mut self,
        clock: Timestamp,
        cluster: &SimulatedCluster,
        metrics: &mut SimulatedMetrics,
        rng: &mut SeededRng,
        backend: &TrafficBackend,
        count: u64,
    ) {
        let set = cluster.replica_set(&backend.revision);
        let up = set.filter(|set| set.ready() > 0);
        let hung = up.is_some_and(|set| set.behavior.hangs);
        // Requests whose clients left before an answer was due are no evidence.
        let judged = if up.is_some_and(|set| !set.behavior.clients_wait) { 0 } else { count };
        let bad =
            up.filter(|_| !hung).map_or(judged, |set| rng.binomial(count, set.behavior.error_rate));
        let wrong = up
            .filter(|_| !hung)
            .map_or(0, |set| rng.binomial(count - bad, set.behavior.wrong_rate));
        metrics.count(&backend.revision, judged, bad, wrong);
        let answered = if hung { 0 } else { count - bad };
        let answers = self.report.answered.get_or_insert_default();
        for (counts, more) in [(&mut self.report.requests, count), (answers, answered)] {
            *counts.entry(backend.revision.clone()).or_default() += more;
        }
        if count > 0 {
            self.report.in_flight.insert(backend.revision.clone(), 1);
        }
        if backend.role == RevisionRole::Candidate {
            self.check_brake(clock, backend, judged, bad);
        }
    }

    /// Trips the brake at ten failures that are at least half of the last fifty requests.
    fn check_brake(&mut self, clock: Timestamp, backend: &TrafficBackend, count: u64, bad: u64) {
        self.recent_failures.extend((0..count).map(|index| index < bad));
        let surplus = self.recent_failures.len().saturating_sub(50);
        self.recent_failures.drain(..surplus);
        let failures = self.recent_failures.iter().filter(|failed| **failed).count();
        if failures >= 10
            && failures * 2 >= self.recent_failures.len()
            && self.report.brake.is_none()
        {
            self.report.brake = Some(BrakeTrip {
                revision: backend.revision.clone(),
                generation: self.report.generation,
                reason: "half of the last requests failed".to_owned(),
                failures: failures as u64,
                requests: self.recent_failures.len() as u64,
                at: clock,
            });
        }
    }
}
