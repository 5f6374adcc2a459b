//! The writes of a plan, each subject to the faults.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use slipway_core::action::{PlanAction, ReconcilePlan};
use slipway_core::fields::ForeignChange;
use slipway_core::observed::{ObjectDisturbance, ObservedState};
use slipway_core::plan::plan;
use slipway_core::refusal::{RefusalCause, RefusalReport, WriteTarget};
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_objects::desired::DesiredObject;
use slipway_objects::{ManagedKind, ObjectTarget};

use super::{ClusterSnapshot, OperatorProcess, ProcessEnvironment, STATUS_WAIT_SECONDS};
use crate::clock::START;
use crate::fault_settings::FaultSettings;

impl OperatorProcess {
    /// Writes the status and executes the actions in the order of the plan.
    pub(super) fn write(
        &mut self,
        decided: &ReconcilePlan,
        observed: &ObservedState,
        view: &ClusterSnapshot,
        around: &mut ProcessEnvironment<'_>,
    ) {
        let changed = view.observed.object.status.as_ref() != Some(&decided.status);
        let wait = changed
            && decided.status_may_wait
            && decided.events.is_empty()
            && around.now < *self.held_since.get_or_insert(around.now) + STATUS_WAIT_SECONDS;
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
            if let Some(kind) = refused_kind(action, around.faults) {
                let (kind, name) = (kind.kind_name(), String::new());
                let message = format!("apply {kind}: forbidden");
                refusals.insert(
                    WriteTarget { verb: "apply", kind, name },
                    RefusalReport { cause: RefusalCause::Fault, message },
                );
            } else if self.write_action(action, around) {
                if matches!(action, PlanAction::WriteReplicas { .. }) {
                    seen = around.cluster.version;
                }
            } else if around.now < self.restart_at {
                return;
            }
        }
        let news = self.refusals.as_ref() != Some(&refusals);
        self.refusals = Some(refusals.clone());
        if news {
            // The same plan, with the rejected writes in its input, builds the status that reports
            // them.
            let status = plan(
                &ObservedState { refusals: Some(refusals), ..observed.clone() },
                self.time(around.now),
            )
            .status;
            let written = if decided.status_first {
                Some(&decided.status)
            } else {
                view.observed.object.status.as_ref()
            };
            if written != Some(&status) && !self.write_status(&status, seen, around) {
                return;
            }
        } else if !decided.status_first
            && changed
            && !wait
            && !self.write_status(&decided.status, seen, around)
        {
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

    fn write_status(
        &mut self,
        status: &ModelDeploymentStatus,
        seen: u64,
        around: &mut ProcessEnvironment<'_>,
    ) -> bool {
        self.attempt("status", around, |around| {
            around.cluster.write_status(status, seen, around.now).is_ok()
        })
    }

    fn write_action(&mut self, action: &PlanAction, around: &mut ProcessEnvironment<'_>) -> bool {
        let word = match action {
            PlanAction::Apply(_) => "apply".to_owned(),
            PlanAction::Restore { desired, .. } => format!("put back {}", desired.target()),
            PlanAction::Adopt { kind, name, .. } => format!("adopt {kind:?} {name}"),
            PlanAction::WriteReplicas { replicas } => format!("write replicas {replicas}"),
            PlanAction::Scale { name, replicas, .. } => format!("scale {name} to {replicas}"),
            PlanAction::Pin { name, digest, .. } => {
                format!("pin {name} to {}", digest.chars().take(15).collect::<String>())
            }
            PlanAction::Mark { name, .. } => format!("mark {name}"),
            PlanAction::Evict { name, .. } => format!("evict {name}"),
            PlanAction::Delete { kind, name, .. } => format!("delete {kind:?} {name}"),
        };
        if let PlanAction::Delete { kind, name, .. } = action {
            self.last_observed.1.remove(&ObjectTarget::new(*kind, name));
        }
        let done = self.attempt(&word, around, |around| {
            let time = START + SignedDuration::from_secs(around.now);
            around.cluster.execute(action, time).is_ok()
        });
        if let Some((desired, change)) = applied_object(action).filter(|_| done) {
            let (target, time) = (desired.target(), self.time(around.now));
            let after = ObjectDisturbance::after_apply(
                self.disturbances.get(&target),
                desired.applied_hash(),
                change,
                None,
                time,
            );
            self.disturbances.insert(target, after);
        }
        if let (PlanAction::Restore { desired, change }, true) = (action, done) {
            let note = change.to_event(&desired.target());
            self.log.push(format!("event Warning {}: {}", note.reason, note.note));
        }
        done
    }

    /// Attempts a write: the process may crash before or after it, the write may fail, or succeed
    /// and appear to have failed.
    fn attempt(
        &mut self,
        word: &str,
        around: &mut ProcessEnvironment<'_>,
        write: impl FnOnce(&mut ProcessEnvironment<'_>) -> bool,
    ) -> bool {
        let faults = *around.faults;
        if around.rng.chance(faults.crash) {
            self.crash(around);
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
            self.crash(around);
            return false;
        }
        if around.rng.chance(faults.lost_answer) {
            self.dirty = true;
            return false;
        }
        done
    }

    /// Loses everything in memory.
    fn crash(&mut self, around: &mut ProcessEnvironment<'_>) {
        self.log.push("dies".to_owned());
        let fresh = Self {
            restart_at: around.now + around.rng.between(1, 15),
            lag: self.lag,
            clock_skew: self.clock_skew,
            plans: self.plans,
            log: std::mem::take(&mut self.log),
            violations: std::mem::take(&mut self.violations),
            serial: around.rng.next_number() % 1000,
            ..Self::new(self.name)
        };
        *self = fresh;
    }
}

/// The object that an action applies, and the change by another client that it reverts.
fn applied_object(action: &PlanAction) -> Option<(&DesiredObject, Option<&ForeignChange>)> {
    match action {
        PlanAction::Apply(desired) => Some((desired, None)),
        PlanAction::Restore { desired, change } => Some((desired, Some(change))),
        _ => None,
    }
}

/// The kind that an action applies, when that is refused for good.
fn refused_kind(action: &PlanAction, faults: &FaultSettings) -> Option<ManagedKind> {
    let (desired, _) = applied_object(action)?;
    faults.refused_kind.filter(|it| *it == desired.kind())
}
