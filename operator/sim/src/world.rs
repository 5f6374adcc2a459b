//! Everything together, second by second, with what must hold in every one of them.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

use crate::behavior::ModelBehavior;
use crate::cluster::SimulatedCluster;
use crate::gateway::SimulatedGateway;
use crate::invariants::InvariantMonitor;
use crate::metrics::SimulatedMetrics;
use crate::operator_process::{ClusterSnapshot, OperatorProcess, ProcessEnvironment};
use crate::rng::SeededRng;

/// When every world begins.
pub(crate) const START: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// Kinds of children that somebody changes.
const KINDS: [&str; 7] = [
    "ReplicaSet",
    "Service",
    "PodDisruptionBudget",
    "ServiceAccount",
    "RoleBinding",
    "Deployment",
    "NetworkPolicy",
];

/// How much goes wrong, as chances a second, or a write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultSettings {
    /// The operator dies, before and after every write.
    pub crash: f64,
    /// A write fails.
    pub lost_write: f64,
    /// A write happens, and its answer is lost.
    pub lost_answer: f64,
    /// The view gets another lag of up to so many seconds.
    pub max_view_lag: i64,
    /// A pod is evicted.
    pub evict: f64,
    /// A gateway dies and another comes.
    pub gateway: f64,
    /// A gateway's watch gets stuck for a while, or its link to the operator breaks.
    pub stuck: f64,
    /// Prometheus goes down, or comes back.
    pub prometheus: f64,
    /// The operator's clock jumps.
    pub clock: f64,
    /// The status is wiped.
    pub wipe: f64,
    /// Somebody scales a ReplicaSet by hand.
    pub meddle: f64,
    /// Somebody writes other bytes to the address of a model.
    pub overwrite: f64,
    /// Somebody changes one of our objects.
    pub alter: f64,
    /// Somebody deletes the ModelDeployment without its children, and makes it again.
    pub orphan: f64,
    /// Another controller changes the child of this kind each time that it is as we want it.
    pub contested_kind: Option<&'static str>,
    /// Applies of this kind are refused for good, also when all other faults end.
    pub refused_kind: Option<&'static str>,
    /// A second operator believes that it leads, too.
    pub two_leaders: bool,
    /// An operator sleeps between a plan and its first write, and then does what it had planned (a
    /// process that is stopped, a machine that is moved).
    pub suspend: f64,
}

/// One world.
pub struct SimulatedWorld {
    pub(crate) now: i64,
    pub(crate) cluster: SimulatedCluster,
    pub(crate) gateways: Vec<SimulatedGateway>,
    pub(crate) metrics: SimulatedMetrics,
    processes: Vec<OperatorProcess>,
    /// What goes wrong from now on.
    pub faults: FaultSettings,
    pub(crate) rng: SeededRng,
    snapshots: VecDeque<Rc<ClusterSnapshot>>,
    gateways_created: u32,
    seen_status: Option<ModelDeploymentStatus>,
    pub(crate) invariants: InvariantMonitor,
    /// What happened.
    pub transcript: Vec<String>,
    /// What must not have happened.
    pub violations: Vec<String>,
}

impl SimulatedWorld {
    /// A world with one ModelDeployment and nothing else.
    pub fn new(object: ModelDeployment, seed: u64) -> Self {
        let mut world = Self {
            now: 0,
            cluster: SimulatedCluster::new(object),
            gateways: Vec::new(),
            metrics: SimulatedMetrics::default(),
            processes: vec![OperatorProcess::new("operator")],
            faults: FaultSettings::default(),
            rng: SeededRng::new(seed),
            snapshots: VecDeque::new(),
            gateways_created: 0,
            seen_status: None,
            invariants: InvariantMonitor::default(),
            transcript: Vec::new(),
            violations: Vec::new(),
        };
        for _ in 0..2 {
            let gateway = world.new_gateway();
            world.gateways.push(gateway);
        }
        world
    }

    /// Says how a version behaves.
    pub fn set_behavior(&mut self, version: &str, truth: ModelBehavior) {
        self.cluster.behaviors.insert(version.to_owned(), truth);
    }

    /// Changes the object as a person or the autoscaler would.
    pub fn edit(&mut self, what: &str, change: impl FnOnce(&mut ModelDeployment)) {
        self.log_line(&format!("person: {what}"));
        self.cluster.edit(change);
    }

    /// The status as stored.
    pub fn status(&self) -> ModelDeploymentStatus {
        self.cluster.object.status.clone().unwrap_or_default()
    }

    /// At which seconds an object was applied, by kind and name.
    pub fn apply_times(&self, target: &str) -> &[i64] {
        self.cluster.apply_times.get(target).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many objects are not as they were applied.
    pub fn altered_count(&self) -> usize {
        self.cluster.altered_count()
    }

    /// Plans that were made, and writes that reached the API server.
    pub fn cost(&self) -> (u64, u64) {
        (self.processes.iter().map(|shell| shell.plans).sum(), self.cluster.writes)
    }

    pub(crate) fn log_line(&mut self, line: &str) {
        let line = format!("{:>5} {line}", self.now);
        self.transcript.push(line);
    }

    /// One second.
    pub fn tick(&mut self) {
        self.now += 1;
        self.metrics.tick(self.now);
        self.inject_faults();
        let clock = START + SignedDuration::from_secs(self.now);
        for index in 0..self.cluster.replica_sets.len() {
            let stored = self.cluster.stored_digest(&self.cluster.replica_sets[index].view.version);
            if self.cluster.replica_sets[index].tick(self.now, &stored, &mut self.rng) {
                self.cluster.changes += 1;
            }
        }
        for gateway in &mut self.gateways {
            // What time alone changes is news as well: a link that stands again.
            let before = watched_facts(gateway, self.now - 1);
            gateway.tick(self.now, clock, &self.cluster, &mut self.metrics, &mut self.rng);
            if before != watched_facts(gateway, self.now) {
                self.cluster.changes += 1;
            }
        }
        self.take_snapshot();
        self.run_processes();
        let found = self.invariants.check_tick(self.now, &self.cluster, &self.gateways);
        self.violations.extend(found);
        self.log_status();
    }

    /// A new picture, when there is something new.
    fn take_snapshot(&mut self) {
        if self.snapshots.back().is_some_and(|view| view.changes == self.cluster.changes) {
            return;
        }
        let pods = self.gateways.iter().map(|gateway| gateway.observed_pod(self.now)).collect();
        let (changes, version) = (self.cluster.changes, self.cluster.version);
        let observed = self.cluster.observe(pods);
        self.snapshots.push_back(Rc::new(ClusterSnapshot {
            at: self.now,
            changes,
            version,
            observed,
        }));
        while self.snapshots.len() > 16 {
            self.snapshots.pop_front();
        }
    }

    fn run_processes(&mut self) {
        let mut shells = std::mem::take(&mut self.processes);
        for shell in &mut shells {
            let seen = self
                .snapshots
                .iter()
                .rev()
                .find(|view| view.at <= self.now - shell.lag)
                .or(self.snapshots.front());
            let Some(view) = seen.cloned() else { continue };
            let mut around = ProcessEnvironment {
                now: self.now,
                cluster: &mut self.cluster,
                metrics: &self.metrics,
                faults: &self.faults,
                rng: &mut self.rng,
            };
            shell.tick(&view, &mut around);
            self.violations.append(&mut shell.violations);
            let name = shell.name;
            for line in std::mem::take(&mut shell.log) {
                self.transcript.push(format!("{:>5} {name}: {line}", self.now));
            }
        }
        self.processes = shells;
        // Two leaders end when the lease does.
        if !self.faults.two_leaders && self.processes.len() > 1 {
            self.processes.truncate(1);
        }
    }

    fn new_gateway(&mut self) -> SimulatedGateway {
        self.gateways_created += 1;
        SimulatedGateway::new(format!("gateway-{}", self.gateways_created), self.now + 3)
    }

    fn inject_faults(&mut self) {
        let faults = self.faults;
        if self.rng.chance(faults.evict) && !self.cluster.replica_sets.is_empty() {
            let index = self.rng.between(0, self.cluster.replica_sets.len() as i64 - 1) as usize;
            if self.cluster.replica_sets[index].evict(&mut self.rng) {
                self.log_line("fault: a pod is evicted");
            }
        }
        if self.rng.chance(faults.gateway) {
            let index = self.rng.between(0, self.gateways.len() as i64 - 1) as usize;
            let gone = std::mem::replace(
                &mut self.gateways[index],
                SimulatedGateway::new(String::new(), 0),
            );
            self.gateways[index] = self.new_gateway();
            self.cluster.changes += 1;
            self.log_line(&format!("fault: {} dies", gone.name));
        }
        if self.rng.chance(faults.stuck) {
            let index = self.rng.between(0, self.gateways.len() as i64 - 1) as usize;
            // Longer than a confirmation may take, too.
            let lag = self.rng.pick(&[0, 1, 2, 5, 40, 150]);
            let dark = if self.rng.chance(0.3) { self.rng.between(1, 150) } else { 0 };
            self.gateways[index].lag = lag;
            self.gateways[index].unreachable_since = self.now;
            self.gateways[index].unreachable_until = self.now + dark;
            self.log_line(&format!("fault: gateway {index} lags by {lag}, dark for {dark}"));
        }
        self.inject_other_faults(faults);
    }

    fn inject_other_faults(&mut self, faults: FaultSettings) {
        if self.rng.chance(faults.prometheus) {
            self.metrics.is_down = self.rng.chance(0.4);
            self.metrics.gap = self.rng.chance(0.2);
            self.log_line(&format!(
                "fault: Prometheus down {}, gap {}",
                self.metrics.is_down, self.metrics.gap
            ));
        }
        if faults.two_leaders && self.processes.len() == 1 {
            self.processes.push(OperatorProcess::new("other"));
        }
        for index in 0..self.processes.len() {
            if faults.max_view_lag > 0 && self.rng.chance(0.1) {
                self.processes[index].lag = self.rng.between(0, faults.max_view_lag);
            }
            if self.rng.chance(faults.clock) {
                self.processes[index].clock_skew = self.rng.between(-30, 30);
                self.log_line("fault: a clock jumps");
            }
        }
        if self.rng.chance(faults.wipe) {
            self.cluster.edit(|object| object.status = None);
            self.invariants.note_wipe(self.now);
            self.log_line("fault: the status is wiped");
        }
        if faults.alter > 0.0 && self.rng.chance(faults.alter) {
            let kind = self.rng.pick(&KINDS);
            if self.cluster.alter_child(kind) {
                self.log_line(&format!("fault: somebody changes the {kind}"));
            }
        }
        if faults.contested_kind.is_some_and(|kind| self.cluster.alter_child(kind)) {
            self.log_line("fault: it is changed back");
        }
        if faults.orphan > 0.0 && self.rng.chance(faults.orphan) {
            self.cluster.recreate_orphaned();
            self.invariants.note_wipe(self.now);
            self.log_line("fault: the ModelDeployment is made again");
        }
        if self.rng.chance(faults.overwrite) && !self.cluster.replica_sets.is_empty() {
            let index = self.rng.between(0, self.cluster.replica_sets.len() as i64 - 1) as usize;
            let version = self.cluster.replica_sets[index].view.version.clone();
            self.cluster.overwrite_model(&version, self.now);
            self.log_line(&format!("fault: other bytes at the address of {version}"));
        }
        if self.rng.chance(faults.meddle) && !self.cluster.replica_sets.is_empty() {
            let index = self.rng.between(0, self.cluster.replica_sets.len() as i64 - 1) as usize;
            let replicas = self.rng.between(0, 6) as i32;
            self.cluster.replica_sets[index].scale(replicas);
            self.cluster.changes += 1;
            self.invariants.note_manual_scale(self.now);
            self.log_line(&format!("fault: somebody scales a ReplicaSet to {replicas}"));
        }
    }

    /// One fault by its word in a script; nothing for a word that is none.
    pub fn inject_fault(&mut self, word: &str) -> Option<()> {
        let (first, kind) = word.split_once(' ').unwrap_or((word, ""));
        match first {
            "alter" => drop(self.cluster.alter_child(kind)),
            "lose" => self.cluster.delete_child(kind),
            "contest" => self.faults.contested_kind = KINDS.into_iter().find(|it| *it == kind),
            "orphan" => self.cluster.recreate_orphaned(),
            "prometheus" => self.metrics.is_down = true,
            "cure" => self.metrics.is_down = false,
            "wipe" => self.cluster.edit(|object| object.status = None),
            "crash" => {
                let mut shell = OperatorProcess::new("operator");
                shell.restart_at = self.now + 10;
                self.processes = vec![shell];
            }
            "gateway" => {
                let fresh = self.new_gateway();
                *self.gateways.first_mut()? = fresh;
                self.cluster.changes += 1;
            }
            "overwrite" => {
                let version = self.cluster.object.spec.model.version.clone().unwrap_or_default();
                self.cluster.overwrite_model(&version, self.now);
            }
            // Its watch does not hear the API server any more, and does not know it.
            "deaf" => self.gateways.first_mut()?.lag = 150,
            // The operator cannot reach it.
            "dark" => {
                let gateway = self.gateways.first_mut()?;
                (gateway.unreachable_since, gateway.unreachable_until) = (self.now, self.now + 150);
            }
            "heal" => self.gateways.first_mut()?.lag = 1,
            "evict" => drop(self.cluster.replica_sets.first_mut()?.evict(&mut self.rng)),
            _ => return None,
        }
        if word == "wipe" || word == "orphan" {
            self.invariants.note_wipe(self.now);
        }
        self.log_line(&format!("fault: {word}"));
        Some(())
    }

    /// No more faults from here on.
    pub fn end_faults(&mut self) {
        self.faults =
            FaultSettings { refused_kind: self.faults.refused_kind, ..FaultSettings::default() };
        self.cluster.restore_models();
        (self.metrics.is_down, self.metrics.gap) = (false, false);
        for gateway in &mut self.gateways {
            (gateway.lag, gateway.unreachable_until) = (1, 0);
        }
        for shell in &mut self.processes {
            (shell.lag, shell.clock_skew) = (0, 0);
        }
        self.cluster.changes += 1;
        self.log_line("all faults end");
    }

    /// A line for every change of what people look at.
    fn log_status(&mut self) {
        if self.seen_status == self.cluster.object.status {
            return;
        }
        let status = self.status();
        if let Some(line) = status_headline(&status).filter(|line| {
            self.seen_status.as_ref().and_then(status_headline).as_ref() != Some(line)
        }) {
            self.log_line(&line);
        }
        self.invariants.score_rollouts(self.seen_status.as_ref(), &self.cluster);
        for note in std::mem::take(&mut self.invariants.notes) {
            self.log_line(&note);
        }
        self.seen_status = self.cluster.object.status.clone();
    }
}

/// What a watch on a gateway would wake the operator for; counts of requests do not.
fn watched_facts(gateway: &SimulatedGateway, now: i64) -> impl PartialEq + use<> {
    let seen = gateway.observed_pod(now);
    let report = seen.report.map(|it| (it.generation, it.brake, it.in_flight));
    (seen.ready, report)
}

fn status_headline(status: &ModelDeploymentStatus) -> Option<String> {
    let names: BTreeMap<&str, &str> = [&status.stable, &status.candidate]
        .into_iter()
        .flatten()
        .map(|it| (it.revision.as_str(), it.version.as_str()))
        .chain(status.rollout.iter().map(|it| (it.revision.as_str(), it.version.as_str())))
        .collect();
    let traffic = status.traffic.as_ref()?;
    let weights: Vec<String> = traffic
        .backends
        .iter()
        .map(|it| {
            format!("{} {}", names.get(it.revision.as_str()).unwrap_or(&"?"), it.weight_permille)
        })
        .collect();
    let stage =
        status.rollout.as_ref().map(|it| format!("{:?} {}", it.stage, it.step)).unwrap_or_default();
    Some(format!(
        "status: {} | {} | generation {} confirmed {}",
        weights.join(", "),
        [status.state.as_str(), &stage].join(" ").trim(),
        traffic.generation,
        traffic.confirmed_generation
    ))
}
