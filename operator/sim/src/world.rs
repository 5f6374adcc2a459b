//! Everything together, second by second, with what must hold in every one of them.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

use crate::cluster::Cluster;
use crate::expect::Expect;
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::rng::Rng;
use crate::shell::{Around, Shell, Snapshot};
use crate::truth::Truth;

/// When every world begins.
pub(crate) const START: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// Kinds of children that somebody changes.
const KINDS: [&str; 7] =
    ["ReplicaSet", "Service", "PodDisruptionBudget", "ServiceAccount", "RoleBinding", "Deployment", "NetworkPolicy"];

/// How much goes wrong, as chances a second, or a write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The operator dies, before and after every write.
    pub crash: f64,
    /// A write fails.
    pub lost_write: f64,
    /// A write happens, and its answer is lost.
    pub lost_answer: f64,
    /// The view gets another lag of up to so many seconds.
    pub stale: i64,
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
    pub contested: Option<&'static str>,
    /// Applies of this kind are refused for good, also when all other faults end.
    pub refused: Option<&'static str>,
    /// A second operator believes that it leads, too.
    pub two_leaders: bool,
    /// An operator sleeps between a plan and its first write, and then does what it had planned (a process that is stopped, a machine that is moved).
    pub thaw: f64,
}

/// One world.
pub struct World {
    pub(crate) now: i64,
    pub(crate) cluster: Cluster,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) metrics: Metrics,
    shells: Vec<Shell>,
    /// What goes wrong from now on.
    pub faults: Faults,
    pub(crate) rng: Rng,
    views: VecDeque<Rc<Snapshot>>,
    born: u32,
    seen_status: Option<ModelDeploymentStatus>,
    pub(crate) expect: Expect,
    /// What happened.
    pub transcript: Vec<String>,
    /// What must not have happened.
    pub broken: Vec<String>,
}

impl World {
    /// A world with one ModelDeployment and nothing else.
    pub fn new(object: ModelDeployment, seed: u64) -> Self {
        let mut world = Self {
            now: 0,
            cluster: Cluster::new(object),
            gateways: Vec::new(),
            metrics: Metrics::default(),
            shells: vec![Shell::new("operator")],
            faults: Faults::default(),
            rng: Rng::new(seed),
            views: VecDeque::new(),
            born: 0,
            seen_status: None,
            expect: Expect::default(),
            transcript: Vec::new(),
            broken: Vec::new(),
        };
        for _ in 0..2 {
            let gateway = world.new_gateway();
            world.gateways.push(gateway);
        }
        world
    }

    /// Says how a version behaves.
    pub fn truth(&mut self, version: &str, truth: Truth) {
        self.cluster.truths.insert(version.to_owned(), truth);
    }

    /// Changes the object as a person or the autoscaler would.
    pub fn edit(&mut self, what: &str, change: impl FnOnce(&mut ModelDeployment)) {
        self.tell(&format!("person: {what}"));
        self.cluster.edit(change);
    }

    /// The status as stored.
    pub fn status(&self) -> ModelDeploymentStatus {
        self.cluster.object.status.clone().unwrap_or_default()
    }

    /// At which seconds an object was applied, by kind and name.
    pub fn applied(&self, target: &str) -> &[i64] {
        self.cluster.applied.get(target).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many objects are not as they were applied.
    pub fn altered(&self) -> usize {
        self.cluster.altered()
    }

    /// Plans that were made, and writes that reached the API server.
    pub fn cost(&self) -> (u64, u64) {
        (self.shells.iter().map(|shell| shell.plans).sum(), self.cluster.writes)
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let line = format!("{:>5} {line}", self.now);
        self.transcript.push(line);
    }

    /// One second.
    pub fn tick(&mut self) {
        self.now += 1;
        self.metrics.tick(self.now);
        self.go_wrong();
        let clock = START + SignedDuration::from_secs(self.now);
        for index in 0..self.cluster.sets.len() {
            let stored = self.cluster.stored(&self.cluster.sets[index].view.version);
            if self.cluster.sets[index].tick(self.now, &stored, &mut self.rng) {
                self.cluster.changes += 1;
            }
        }
        for gateway in &mut self.gateways {
            // What time alone changes is news as well: a link that stands again.
            let before = facts(gateway, self.now - 1);
            gateway.tick(self.now, clock, &self.cluster, &mut self.metrics, &mut self.rng);
            if before != facts(gateway, self.now) {
                self.cluster.changes += 1;
            }
        }
        self.look();
        self.operate();
        let found = self.expect.every_second(self.now, &self.cluster, &self.gateways);
        self.broken.extend(found);
        self.tell_status();
    }

    /// A new picture, when there is something new.
    fn look(&mut self) {
        if self.views.back().is_some_and(|view| view.changes == self.cluster.changes) {
            return;
        }
        let pods = self.gateways.iter().map(|gateway| gateway.seen(self.now)).collect();
        let (changes, version) = (self.cluster.changes, self.cluster.version);
        let observed = self.cluster.observed(pods);
        self.views.push_back(Rc::new(Snapshot { at: self.now, changes, version, observed }));
        while self.views.len() > 16 {
            self.views.pop_front();
        }
    }

    fn operate(&mut self) {
        let mut shells = std::mem::take(&mut self.shells);
        for shell in &mut shells {
            let seen = self.views.iter().rev().find(|view| view.at <= self.now - shell.lag).or(self.views.front());
            let Some(view) = seen.cloned() else { continue };
            let mut around = Around {
                now: self.now,
                cluster: &mut self.cluster,
                metrics: &self.metrics,
                faults: &self.faults,
                rng: &mut self.rng,
            };
            shell.tick(&view, &mut around);
            self.broken.append(&mut shell.broken);
            let name = shell.name;
            for line in std::mem::take(&mut shell.log) {
                self.transcript.push(format!("{:>5} {name}: {line}", self.now));
            }
        }
        self.shells = shells;
        // Two leaders end when the lease does.
        if !self.faults.two_leaders && self.shells.len() > 1 {
            self.shells.truncate(1);
        }
    }

    fn new_gateway(&mut self) -> Gateway {
        self.born += 1;
        Gateway::new(format!("gateway-{}", self.born), self.now + 3)
    }

    fn go_wrong(&mut self) {
        let faults = self.faults;
        if self.rng.chance(faults.evict) && !self.cluster.sets.is_empty() {
            let index = self.rng.between(0, self.cluster.sets.len() as i64 - 1) as usize;
            if self.cluster.sets[index].evict(&mut self.rng) {
                self.tell("fault: a pod is evicted");
            }
        }
        if self.rng.chance(faults.gateway) {
            let index = self.rng.between(0, self.gateways.len() as i64 - 1) as usize;
            let gone = std::mem::replace(&mut self.gateways[index], Gateway::new(String::new(), 0));
            self.gateways[index] = self.new_gateway();
            self.cluster.changes += 1;
            self.tell(&format!("fault: {} dies", gone.name));
        }
        if self.rng.chance(faults.stuck) {
            let index = self.rng.between(0, self.gateways.len() as i64 - 1) as usize;
            // Longer than a confirmation may take, too.
            let lag = self.rng.pick(&[0, 1, 2, 5, 40, 150]);
            let dark = if self.rng.chance(0.3) { self.rng.between(1, 150) } else { 0 };
            self.gateways[index].lag = lag;
            self.gateways[index].dark_since = self.now;
            self.gateways[index].dark_until = self.now + dark;
            self.tell(&format!("fault: gateway {index} lags by {lag}, dark for {dark}"));
        }
        self.go_wrong_elsewhere(faults);
    }

    fn go_wrong_elsewhere(&mut self, faults: Faults) {
        if self.rng.chance(faults.prometheus) {
            self.metrics.down = self.rng.chance(0.4);
            self.metrics.gap = self.rng.chance(0.2);
            self.tell(&format!("fault: Prometheus down {}, gap {}", self.metrics.down, self.metrics.gap));
        }
        if faults.two_leaders && self.shells.len() == 1 {
            self.shells.push(Shell::new("other"));
        }
        for index in 0..self.shells.len() {
            if faults.stale > 0 && self.rng.chance(0.1) {
                self.shells[index].lag = self.rng.between(0, faults.stale);
            }
            if self.rng.chance(faults.clock) {
                self.shells[index].clock = self.rng.between(-30, 30);
                self.tell("fault: a clock jumps");
            }
        }
        if self.rng.chance(faults.wipe) {
            self.cluster.edit(|object| object.status = None);
            self.expect.wiped(self.now);
            self.tell("fault: the status is wiped");
        }
        if faults.alter > 0.0 && self.rng.chance(faults.alter) {
            let kind = self.rng.pick(&KINDS);
            if self.cluster.alter(kind) {
                self.tell(&format!("fault: somebody changes the {kind}"));
            }
        }
        if faults.contested.is_some_and(|kind| self.cluster.alter(kind)) {
            self.tell("fault: it is changed back");
        }
        if faults.orphan > 0.0 && self.rng.chance(faults.orphan) {
            self.cluster.orphan();
            self.expect.wiped(self.now);
            self.tell("fault: the ModelDeployment is made again");
        }
        if self.rng.chance(faults.overwrite) && !self.cluster.sets.is_empty() {
            let index = self.rng.between(0, self.cluster.sets.len() as i64 - 1) as usize;
            let version = self.cluster.sets[index].view.version.clone();
            self.cluster.overwrite(&version, self.now);
            self.tell(&format!("fault: other bytes at the address of {version}"));
        }
        if self.rng.chance(faults.meddle) && !self.cluster.sets.is_empty() {
            let index = self.rng.between(0, self.cluster.sets.len() as i64 - 1) as usize;
            let replicas = self.rng.between(0, 6) as i32;
            self.cluster.sets[index].scale(replicas);
            self.cluster.changes += 1;
            self.expect.meddled(self.now);
            self.tell(&format!("fault: somebody scales a ReplicaSet to {replicas}"));
        }
    }

    /// One fault by its word in a script; nothing for a word that is none.
    pub fn fault(&mut self, word: &str) -> Option<()> {
        let (first, kind) = word.split_once(' ').unwrap_or((word, ""));
        match first {
            "alter" => drop(self.cluster.alter(kind)),
            "lose" => self.cluster.lose(kind),
            "contest" => self.faults.contested = KINDS.into_iter().find(|it| *it == kind),
            "orphan" => self.cluster.orphan(),
            "prometheus" => self.metrics.down = true,
            "cure" => self.metrics.down = false,
            "wipe" => self.cluster.edit(|object| object.status = None),
            "crash" => {
                let mut shell = Shell::new("operator");
                shell.alive_at = self.now + 10;
                self.shells = vec![shell];
            }
            "gateway" => {
                let fresh = self.new_gateway();
                *self.gateways.first_mut()? = fresh;
                self.cluster.changes += 1;
            }
            "overwrite" => {
                let version = self.cluster.object.spec.model.version.clone().unwrap_or_default();
                self.cluster.overwrite(&version, self.now);
            }
            // Its watch does not hear the API server any more, and does not know it.
            "deaf" => self.gateways.first_mut()?.lag = 150,
            // The operator cannot reach it.
            "dark" => {
                let gateway = self.gateways.first_mut()?;
                (gateway.dark_since, gateway.dark_until) = (self.now, self.now + 150);
            }
            "heal" => self.gateways.first_mut()?.lag = 1,
            "evict" => drop(self.cluster.sets.first_mut()?.evict(&mut self.rng)),
            _ => return None,
        }
        if word == "wipe" || word == "orphan" {
            self.expect.wiped(self.now);
        }
        self.tell(&format!("fault: {word}"));
        Some(())
    }

    /// No more faults from here on.
    pub fn heal(&mut self) {
        self.faults = Faults { refused: self.faults.refused, ..Faults::default() };
        self.cluster.restore();
        (self.metrics.down, self.metrics.gap) = (false, false);
        for gateway in &mut self.gateways {
            (gateway.lag, gateway.dark_until) = (1, 0);
        }
        for shell in &mut self.shells {
            (shell.lag, shell.clock) = (0, 0);
        }
        self.cluster.changes += 1;
        self.tell("all faults end");
    }

    /// A line for every change of what people look at.
    fn tell_status(&mut self) {
        if self.seen_status == self.cluster.object.status {
            return;
        }
        let status = self.status();
        if let Some(line) =
            headline(&status).filter(|line| self.seen_status.as_ref().and_then(headline).as_ref() != Some(line))
        {
            self.tell(&line);
        }
        self.expect.status(self.seen_status.as_ref(), &self.cluster);
        for note in std::mem::take(&mut self.expect.notes) {
            self.tell(&note);
        }
        self.seen_status = self.cluster.object.status.clone();
    }
}

/// What a watch on a gateway would wake the operator for; counts of requests do not.
fn facts(gateway: &Gateway, now: i64) -> impl PartialEq + use<> {
    let seen = gateway.seen(now);
    let report = seen.report.map(|it| (it.generation, it.brake, it.in_flight));
    (seen.ready, report)
}

fn headline(status: &ModelDeploymentStatus) -> Option<String> {
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
        .map(|it| format!("{} {}", names.get(it.revision.as_str()).unwrap_or(&"?"), it.weight_permille))
        .collect();
    let stage = status.rollout.as_ref().map(|it| format!("{:?} {}", it.stage, it.step)).unwrap_or_default();
    Some(format!(
        "status: {} | {} | generation {} confirmed {}",
        weights.join(", "),
        [status.state.as_str(), &stage].join(" ").trim(),
        traffic.generation,
        traffic.confirmed_generation
    ))
}
