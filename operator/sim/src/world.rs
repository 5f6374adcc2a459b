//! Combines all parts, second by second, and checks the invariants in each second.

mod faults;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use jiff::SignedDuration;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};
use slipway_objects::ObjectTarget;

use crate::behavior::ModelBehavior;
use crate::clock::START;
use crate::cluster::SimulatedCluster;
use crate::fault_settings::FaultSettings;
use crate::gateway::SimulatedGateway;
use crate::invariants::InvariantMonitor;
use crate::metrics::SimulatedMetrics;
use crate::operator_process::{ClusterSnapshot, OperatorProcess, ProcessEnvironment};
use crate::rng::SeededRng;

/// One simulated world.
pub struct SimulatedWorld {
    pub(crate) now: i64,
    pub(crate) cluster: SimulatedCluster,
    pub(crate) gateways: Vec<SimulatedGateway>,
    pub(crate) metrics: SimulatedMetrics,
    processes: Vec<OperatorProcess>,
    /// The faults from now on.
    pub faults: FaultSettings,
    pub(crate) rng: SeededRng,
    snapshots: VecDeque<Rc<ClusterSnapshot>>,
    gateways_created: u32,
    seen_status: Option<ModelDeploymentStatus>,
    pub(crate) invariants: InvariantMonitor,
    /// The events of the run.
    pub transcript: Vec<String>,
    /// Violated invariants.
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

    /// Sets the behaviour of a version.
    pub fn set_behavior(&mut self, version: &str, truth: ModelBehavior) {
        self.cluster.behaviors.insert(version.to_owned(), truth);
    }

    /// Changes the object as a user or the autoscaler would.
    pub fn edit(&mut self, what: &str, change: impl FnOnce(&mut ModelDeployment)) {
        self.log_line(&format!("person: {what}"));
        self.cluster.edit(change);
    }

    /// The stored status.
    pub fn status(&self) -> ModelDeploymentStatus {
        self.cluster.object.status.clone().unwrap_or_default()
    }

    /// At which seconds an object was applied.
    pub fn apply_times(&self, target: &ObjectTarget) -> &[i64] {
        self.cluster.apply_times.get(target).map(Vec::as_slice).unwrap_or_default()
    }

    /// Number of objects that differ from what was applied.
    pub fn altered_count(&self) -> usize {
        self.cluster.altered_count()
    }

    /// Number of plans, and number of writes that reached the API server.
    pub fn cost(&self) -> (u64, u64) {
        (self.processes.iter().map(|shell| shell.plans).sum(), self.cluster.writes)
    }

    pub(crate) fn log_line(&mut self, line: &str) {
        let line = format!("{:>5} {line}", self.now);
        self.transcript.push(line);
    }

    /// Simulates one second.
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
            // A change by time alone counts as well, such as a restored connection.
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

    /// Takes a snapshot if something changed.
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
        // A second leader ends with its lease.
        if !self.faults.two_leaders && self.processes.len() > 1 {
            self.processes.truncate(1);
        }
    }

    fn new_gateway(&mut self) -> SimulatedGateway {
        self.gateways_created += 1;
        SimulatedGateway::new(format!("gateway-{}", self.gateways_created), self.now + 3)
    }

    /// Logs a line for every change of the parts of the status that users look at.
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

/// The facts about a gateway whose changes wake the operator; counts of requests do not.
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
