//! Faults: random ones, scripted ones, and their end.

use slipway_objects::ManagedKind;

use super::SimulatedWorld;
use crate::fault_settings::FaultSettings;
use crate::gateway::SimulatedGateway;
use crate::operator_process::OperatorProcess;

/// Kinds of children that somebody changes.
const KINDS: [ManagedKind; 7] = [
    ManagedKind::ReplicaSet,
    ManagedKind::Service,
    ManagedKind::PodDisruptionBudget,
    ManagedKind::ServiceAccount,
    ManagedKind::RoleBinding,
    ManagedKind::Deployment,
    ManagedKind::NetworkPolicy,
];

impl SimulatedWorld {
    pub(super) fn inject_faults(&mut self) {
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
            // Includes lags longer than a confirmation may take.
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

    /// Injects one fault by its word in a script; `None` for an unknown word.
    pub fn inject_fault(&mut self, word: &str) -> Option<()> {
        let (first, kind) = word.split_once(' ').unwrap_or((word, ""));
        let kind = KINDS.into_iter().find(|it| it.kind_name() == kind);
        match first {
            "alter" => drop(self.cluster.alter_child(kind?)),
            "lose" => self.cluster.delete_child(kind?),
            "contest" => self.faults.contested_kind = kind,
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
            // Its watch receives no events from the API server, without an error.
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

    /// Ends all faults.
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
}
