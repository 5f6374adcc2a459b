//! The operator's process: a stale view, a poller, lost writes, a clock that jumps, and crashes
//! between any two writes.

mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use slipway_core::action::ReconcilePlan;
use slipway_core::check::check_plan;
use slipway_core::observed::{ObjectDisturbance, ObservedState};
use slipway_core::plan::plan;
use slipway_core::refusal::{RefusalReport, WriteTarget};
use slipway_judge::evidence::{EvidenceRequest, GateEvidence};
use slipway_objects::{GATEWAY, ManagedKind, ObjectTarget};

use crate::clock::START;
use crate::cluster::SimulatedCluster;
use crate::fault_settings::FaultSettings;
use crate::metrics::SimulatedMetrics;
use crate::rng::SeededRng;

/// Seconds for which a status write that may wait is delayed.
const STATUS_WAIT_SECONDS: i64 = 3;

/// The state of the world at one time.
pub(crate) struct ClusterSnapshot {
    pub(crate) at: i64,
    pub(crate) changes: u64,
    pub(crate) version: u64,
    pub(crate) observed: ObservedState,
}

/// One operator process.
#[derive(Clone, Debug)]
pub(crate) struct OperatorProcess {
    pub(crate) name: &'static str,
    /// Time until which it is down after a crash, in seconds.
    pub(crate) restart_at: i64,
    /// Lag of its view in seconds.
    pub(crate) lag: i64,
    /// Error of its clock in seconds.
    pub(crate) clock_skew: i64,
    dirty: bool,
    seen_changes: u64,
    wake_at: Option<Timestamp>,
    held_since: Option<i64>,
    request: Option<(EvidenceRequest, [String; 2])>,
    evidence: Option<GateEvidence>,
    next_read: i64,
    /// What was refused at the last plan.
    refusals: Option<BTreeMap<WriteTarget, RefusalReport>>,
    /// What others did to the objects that it writes.
    disturbances: BTreeMap<ObjectTarget, ObjectDisturbance>,
    /// The ModelDeployment and its objects as they were at the last plan.
    last_observed: (Option<String>, BTreeSet<ObjectTarget>),
    /// What it had planned when it fell asleep, and until when it sleeps.
    suspended: Option<(i64, Box<SuspendedPlan>)>,
    serial: u64,
    pub(crate) plans: u64,
    pub(crate) log: Vec<String>,
    pub(crate) violations: Vec<String>,
}

/// A plan that is not executed yet.
#[derive(Clone)]
pub(crate) struct SuspendedPlan {
    plan: ReconcilePlan,
    observed: ObservedState,
    view: Rc<ClusterSnapshot>,
}

impl std::fmt::Debug for SuspendedPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asleep")
    }
}

/// The parts of the world that the process uses.
pub(crate) struct ProcessEnvironment<'a> {
    pub(crate) now: i64,
    pub(crate) cluster: &'a mut SimulatedCluster,
    pub(crate) metrics: &'a SimulatedMetrics,
    pub(crate) faults: &'a FaultSettings,
    pub(crate) rng: &'a mut SeededRng,
}

impl OperatorProcess {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            restart_at: 0,
            lag: 0,
            clock_skew: 0,
            dirty: true,
            seen_changes: 0,
            wake_at: None,
            held_since: None,
            request: None,
            evidence: None,
            next_read: 0,
            refusals: None,
            disturbances: BTreeMap::new(),
            last_observed: (None, BTreeSet::new()),
            suspended: None,
            serial: 0,
            plans: 0,
            log: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Simulates one second with the view that the lag allows.
    pub(crate) fn tick(&mut self, view: &Rc<ClusterSnapshot>, around: &mut ProcessEnvironment<'_>) {
        if around.now < self.restart_at {
            return;
        }
        if let Some((until, asleep)) = self.suspended.take() {
            if around.now < until {
                self.suspended = Some((until, asleep));
                return;
            }
            self.log.push("wakes up".to_owned());
            self.dirty = true;
            self.write(&asleep.plan, &asleep.observed, &asleep.view, around);
            return;
        }
        self.poll_evidence(around);
        let time = self.time(around.now);
        let due = self.wake_at.is_some_and(|at| time >= at);
        let held = self.held_since.is_some_and(|since| around.now >= since + STATUS_WAIT_SECONDS);
        if !self.dirty && view.changes == self.seen_changes && !due && !held {
            return;
        }
        (self.dirty, self.seen_changes) = (false, view.changes);
        let mut observed = view.observed.clone();
        observed.evidence = self.evidence.clone();
        observed.refusals = self.refusals.clone();
        self.note_removed(&observed, time);
        observed.disturbances = self.disturbances.clone();
        let decided = plan(&observed, time);
        self.plans += 1;
        let broken = check_plan(&observed, &decided, time);
        self.violations.extend(
            broken.into_iter().map(|what| format!("{}s {}: {what}", around.now, self.name)),
        );
        self.wake_at = decided.wake_at;
        self.schedule_evidence(&decided, around.now);
        if around.faults.suspend > 0.0 && around.rng.chance(around.faults.suspend) {
            let until = around.now + around.rng.between(1, 60);
            self.log.push(format!("falls asleep until {until}"));
            let asleep = SuspendedPlan { plan: decided, observed, view: Rc::clone(view) };
            self.suspended = Some((until, Box::new(asleep)));
            return;
        }
        self.write(&decided, &observed, view, around);
    }

    /// Records the objects that were removed since the last plan.
    fn note_removed(&mut self, observed: &ObservedState, time: Timestamp) {
        let uid = observed.object.metadata.uid.clone();
        if self.last_observed.0 != uid {
            (self.last_observed, self.disturbances) = ((uid, BTreeSet::new()), BTreeMap::new());
        }
        let now = object_targets(observed);
        for gone in self.last_observed.1.difference(&now) {
            self.disturbances.entry(gone.clone()).or_default().removed = true;
        }
        self.disturbances.retain(|_, it| !it.is_over(time));
        self.last_observed.1 = now;
    }

    fn time(&self, now: i64) -> Timestamp {
        START + SignedDuration::from_secs(now + self.clock_skew)
    }

    fn schedule_evidence(&mut self, decided: &ReconcilePlan, now: i64) {
        let asked = self.request.as_ref().map(|(request, _)| request);
        if asked == decided.evidence.as_ref() {
            return;
        }
        let revision = |it: &Option<slipway_crds::v1alpha1::RevisionStatus>| {
            it.as_ref().map(|it| it.revision.clone()).unwrap_or_default()
        };
        let arms = [revision(&decided.status.candidate), revision(&decided.status.stable)];
        self.request = decided.evidence.clone().map(|request| (request, arms));
        self.next_read = now + 1;
    }

    fn poll_evidence(&mut self, around: &mut ProcessEnvironment<'_>) {
        let Some((request, arms)) = self.request.clone().filter(|_| around.now >= self.next_read)
        else {
            return;
        };
        self.next_read = around.now + i64::from(request.interval_seconds);
        let time = self.time(around.now);
        let age = time.duration_since(request.since).as_secs().max(0);
        let arms = [arms[0].as_str(), arms[1].as_str()];
        let gates: BTreeMap<_, _> = request
            .gates
            .iter()
            .map(|gate| (gate.gate.clone(), around.metrics.read(&gate.gate, arms, age, around.rng)))
            .collect();
        self.serial += 1;
        self.evidence = Some(GateEvidence {
            generation: request.generation,
            taken_at: time,
            serial: self.serial,
            gates,
        });
        self.dirty = true;
    }
}

/// The objects that are there.
fn object_targets(observed: &ObservedState) -> BTreeSet<ObjectTarget> {
    let gateway = observed.gateway.objects.keys().map(|kind| ObjectTarget::new(*kind, GATEWAY));
    let sets = observed.replica_sets.iter();
    let sets = sets.map(|set| ObjectTarget::new(ManagedKind::ReplicaSet, &set.name));
    observed.children.keys().cloned().chain(gateway).chain(sets).collect()
}
