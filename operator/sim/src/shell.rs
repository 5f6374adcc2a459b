//! The operator's process: a view that is stale, a poller, writes that get lost, a clock that jumps, and death between any two writes.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use slipway_core::action::{Action, Plan};
use slipway_core::build::GATEWAY;
use slipway_core::check::check;
use slipway_core::desired::Desired;
use slipway_core::evidence::{Evidence, EvidenceRequest};
use slipway_core::fields::Change;
use slipway_core::observed::{Disturbance, Observed};
use slipway_core::plan::plan;
use slipway_crds::v1alpha1::ModelDeploymentStatus;

use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::rng::Rng;
use crate::world::{Faults, START};

/// Seconds for which a status that may wait is held back.
const WAIT: i64 = 3;

/// The world at one time.
pub(crate) struct Snapshot {
    pub(crate) at: i64,
    pub(crate) changes: u64,
    pub(crate) version: u64,
    pub(crate) observed: Observed,
}

/// One operator.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    pub(crate) name: &'static str,
    /// It is dead until then.
    pub(crate) alive_at: i64,
    /// Seconds by which its view lags.
    pub(crate) lag: i64,
    /// Seconds by which its clock is wrong.
    pub(crate) clock: i64,
    dirty: bool,
    seen: u64,
    wake_at: Option<Timestamp>,
    held_since: Option<i64>,
    request: Option<(EvidenceRequest, [String; 2])>,
    evidence: Option<Evidence>,
    next_read: i64,
    /// What was refused at the last plan.
    refusals: Option<BTreeMap<String, String>>,
    /// What others did to the objects that it writes.
    disturbances: BTreeMap<String, Disturbance>,
    /// The ModelDeployment and its objects as they were at the last plan.
    known: (Option<String>, BTreeSet<String>),
    /// What it had planned when it fell asleep, and until when it sleeps.
    asleep: Option<(i64, Box<Asleep>)>,
    serial: u64,
    pub(crate) plans: u64,
    pub(crate) log: Vec<String>,
    pub(crate) broken: Vec<String>,
}

/// A plan that is not carried out yet.
#[derive(Clone)]
pub(crate) struct Asleep {
    decided: Plan,
    observed: Observed,
    view: Rc<Snapshot>,
}

impl std::fmt::Debug for Asleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asleep")
    }
}

/// What the process has to do with.
pub(crate) struct Around<'a> {
    pub(crate) now: i64,
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) metrics: &'a Metrics,
    pub(crate) faults: &'a Faults,
    pub(crate) rng: &'a mut Rng,
}

impl Shell {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            alive_at: 0,
            lag: 0,
            clock: 0,
            dirty: true,
            seen: 0,
            wake_at: None,
            held_since: None,
            request: None,
            evidence: None,
            next_read: 0,
            refusals: None,
            disturbances: BTreeMap::new(),
            known: (None, BTreeSet::new()),
            asleep: None,
            serial: 0,
            plans: 0,
            log: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// One second with the view that the lag allows.
    pub(crate) fn tick(&mut self, view: &Rc<Snapshot>, around: &mut Around<'_>) {
        if around.now < self.alive_at {
            return;
        }
        if let Some((until, asleep)) = self.asleep.take() {
            if around.now < until {
                self.asleep = Some((until, asleep));
                return;
            }
            self.log.push("wakes up".to_owned());
            self.dirty = true;
            self.write(&asleep.decided, &asleep.observed, &asleep.view, around);
            return;
        }
        self.poll(around);
        let time = self.time(around.now);
        let due = self.wake_at.is_some_and(|at| time >= at);
        let held = self.held_since.is_some_and(|since| around.now >= since + WAIT);
        if !self.dirty && view.changes == self.seen && !due && !held {
            return;
        }
        (self.dirty, self.seen) = (false, view.changes);
        let mut observed = view.observed.clone();
        observed.evidence = self.evidence.clone();
        observed.refusals = self.refusals.clone();
        self.miss(&observed, time);
        observed.disturbances = self.disturbances.clone();
        let decided = plan(&observed, time);
        self.plans += 1;
        let broken = check(&observed, &decided, time);
        self.broken.extend(broken.into_iter().map(|what| format!("{}s {}: {what}", around.now, self.name)));
        self.wake_at = decided.wake_at;
        self.ask(&decided, around.now);
        if around.faults.thaw > 0.0 && around.rng.chance(around.faults.thaw) {
            let until = around.now + around.rng.between(1, 60);
            self.log.push(format!("falls asleep until {until}"));
            let asleep = Asleep { decided, observed, view: Rc::clone(view) };
            self.asleep = Some((until, Box::new(asleep)));
            return;
        }
        self.write(&decided, &observed, view, around);
    }

    /// Notes which objects are gone since the last plan.
    fn miss(&mut self, observed: &Observed, time: Timestamp) {
        let uid = observed.object.metadata.uid.clone();
        if self.known.0 != uid {
            (self.known, self.disturbances) = ((uid, BTreeSet::new()), BTreeMap::new());
        }
        let now = targets(observed);
        for gone in self.known.1.difference(&now) {
            self.disturbances.entry(gone.clone()).or_default().removed = true;
        }
        self.disturbances.retain(|_, it| !it.is_over(time));
        self.known.1 = now;
    }

    fn time(&self, now: i64) -> Timestamp {
        START + SignedDuration::from_secs(now + self.clock)
    }

    fn ask(&mut self, decided: &Plan, now: i64) {
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

    fn poll(&mut self, around: &mut Around<'_>) {
        let Some((request, arms)) = self.request.clone().filter(|_| around.now >= self.next_read) else { return };
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
        self.evidence = Some(Evidence { generation: request.generation, taken_at: time, serial: self.serial, gates });
        self.dirty = true;
    }

    /// Status and actions in the order of the plan, each write at the mercy of the faults.
    fn write(&mut self, decided: &Plan, observed: &Observed, view: &Snapshot, around: &mut Around<'_>) {
        let changed = view.observed.object.status.as_ref() != Some(&decided.status);
        let wait = changed
            && decided.status_may_wait
            && decided.events.is_empty()
            && around.now < *self.held_since.get_or_insert(around.now) + WAIT;
        if !wait {
            self.held_since = None;
        }
        let mut seen = view.version;
        if decided.status_first {
            if !self.write_status(&decided.status, seen, around) {
                return;
            }
            seen = around.cluster.version;
        }
        let mut refusals = BTreeMap::new();
        for action in &decided.actions {
            if let Some(kind) = refused(action, around.faults) {
                refusals.insert(format!("apply {kind}"), format!("apply {kind}: forbidden"));
            } else if self.write_action(action, around) {
                if matches!(action, Action::WriteReplicas { .. }) {
                    seen = around.cluster.version;
                }
            } else if around.now < self.alive_at {
                return;
            }
        }
        let news = self.refusals.as_ref() != Some(&refusals);
        self.refusals = Some(refusals.clone());
        if news {
            // What is refused is told by the same plan with that in its view.
            let told = plan(&Observed { refusals: Some(refusals), ..observed.clone() }, self.time(around.now)).status;
            let written =
                if decided.status_first { Some(&decided.status) } else { view.observed.object.status.as_ref() };
            if written != Some(&told) && !self.write_status(&told, seen, around) {
                return;
            }
        } else if !decided.status_first && changed && !wait && !self.write_status(&decided.status, seen, around) {
            return;
        }
        for note in &decided.events {
            self.log.push(format!(
                "event {} {}: {}",
                if note.warning { "Warning" } else { "Normal" },
                note.reason,
                note.note
            ));
            around.cluster.writes += 1;
        }
    }

    fn write_status(&mut self, status: &ModelDeploymentStatus, seen: u64, around: &mut Around<'_>) -> bool {
        self.attempt("status", around, |around| around.cluster.write_status(status, seen, around.now).is_ok())
    }

    fn write_action(&mut self, action: &Action, around: &mut Around<'_>) -> bool {
        let word = match action {
            Action::Apply(_) => "apply".to_owned(),
            Action::Restore { desired, .. } => format!("put back {}", desired.target()),
            Action::Adopt { kind, name, .. } => format!("adopt {kind:?} {name}"),
            Action::WriteReplicas { replicas } => format!("write replicas {replicas}"),
            Action::Scale { name, replicas, .. } => format!("scale {name} to {replicas}"),
            Action::Pin { name, digest, .. } => {
                format!("pin {name} to {}", digest.chars().take(15).collect::<String>())
            }
            Action::Mark { name, .. } => format!("mark {name}"),
            Action::Evict { name, .. } => format!("evict {name}"),
            Action::Delete { kind, name, .. } => format!("delete {kind:?} {name}"),
        };
        if let Action::Delete { kind, name, .. } = action {
            self.known.1.remove(&format!("{kind:?} {name}"));
        }
        let done = self.attempt(&word, around, |around| {
            let time = START + SignedDuration::from_secs(around.now);
            around.cluster.carry_out(action, time).is_ok()
        });
        if let Some((desired, change)) = applied(action).filter(|_| done) {
            let (target, time) = (desired.target(), self.time(around.now));
            let after = Disturbance::after(self.disturbances.get(&target), desired.stamp(), change, None, time);
            self.disturbances.insert(target, after);
        }
        if let (Action::Restore { desired, change }, true) = (action, done) {
            let note = change.note(&desired.target());
            self.log.push(format!("event Warning {}: {}", note.reason, note.note));
        }
        done
    }

    /// A write may kill the process before or after it, fail, or happen and look as if it had failed.
    fn attempt(&mut self, word: &str, around: &mut Around<'_>, write: impl FnOnce(&mut Around<'_>) -> bool) -> bool {
        let faults = *around.faults;
        if around.rng.chance(faults.crash) {
            self.die(around);
            return false;
        }
        if around.rng.chance(faults.lost_write) {
            self.dirty = true;
            return false;
        }
        let done = write(around);
        if done {
            self.log.push(word.to_owned());
        } else {
            self.dirty = true;
        }
        if around.rng.chance(faults.crash) {
            self.die(around);
            return false;
        }
        if around.rng.chance(faults.lost_answer) {
            self.dirty = true;
            return false;
        }
        done
    }

    /// Whatever it held in memory is gone.
    fn die(&mut self, around: &mut Around<'_>) {
        self.log.push("dies".to_owned());
        let fresh = Self {
            alive_at: around.now + around.rng.between(1, 15),
            lag: self.lag,
            clock: self.clock,
            plans: self.plans,
            log: std::mem::take(&mut self.log),
            broken: std::mem::take(&mut self.broken),
            serial: around.rng.number() % 1000,
            ..Self::new(self.name)
        };
        *self = fresh;
    }
}

/// What an action applies, and what was done to it before.
fn applied(action: &Action) -> Option<(&Desired, Option<&Change>)> {
    match action {
        Action::Apply(desired) => Some((desired, None)),
        Action::Restore { desired, change } => Some((desired, Some(change))),
        _ => None,
    }
}

/// The objects that are there, by kind and name.
fn targets(observed: &Observed) -> BTreeSet<String> {
    let (name, gateway) = (observed.object.metadata.name.as_deref().unwrap_or_default(), &observed.gateway);
    let single = [
        ("PodDisruptionBudget", name, &observed.disruption_budget),
        ("HorizontalPodAutoscaler", name, &observed.autoscaler),
        ("ServiceAccount", GATEWAY, &gateway.service_account),
        ("RoleBinding", GATEWAY, &gateway.role_binding),
        ("Service", GATEWAY, &gateway.service),
        ("Deployment", GATEWAY, &gateway.deployment),
        ("PodDisruptionBudget", GATEWAY, &gateway.disruption_budget),
        ("NetworkPolicy", GATEWAY, &gateway.network_policy),
        ("HorizontalPodAutoscaler", GATEWAY, &gateway.autoscaler),
    ];
    let single = single.into_iter().filter(|(_, _, view)| view.is_some()).map(|(kind, name, _)| (kind, name));
    let services = observed.services.keys().map(|name| ("Service", name.as_str()));
    let policies = observed.network_policies.keys().map(|name| ("NetworkPolicy", name.as_str()));
    let sets = observed.replica_sets.iter().map(|set| ("ReplicaSet", set.name.as_str()));
    single.chain(services).chain(policies).chain(sets).map(|(kind, name)| format!("{kind} {name}")).collect()
}

/// The kind that an action applies, when that is refused for good.
fn refused(action: &Action, faults: &Faults) -> Option<&'static str> {
    let (desired, _) = applied(action)?;
    let kind = match desired {
        Desired::PodDisruptionBudget(_) => "PodDisruptionBudget",
        Desired::ServiceAccount(_) => "ServiceAccount",
        Desired::RoleBinding(_) => "RoleBinding",
        Desired::Deployment(_) => "Deployment",
        Desired::NetworkPolicy(_) => "NetworkPolicy",
        _ => return None,
    };
    faults.refused.filter(|it| *it == kind)
}
