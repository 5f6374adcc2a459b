//! What actions of a plan do to the objects.

use jiff::Timestamp;
use slipway_core::action::PlanAction;
use slipway_core::fields;
use slipway_objects::desired::DesiredObject;
use slipway_objects::{GATEWAY, ManagedKind, container_images, is_shared};
use slipway_testkit::{applied_object, applied_replica_set};

use super::{SimulatedCluster, WriteRefusal};
use crate::behavior::ModelQuality;
use crate::clock::START;
use crate::pods::SimulatedReplicaSet;

impl SimulatedCluster {
    /// Carries out an action.
    pub(crate) fn execute(
        &mut self,
        action: &PlanAction,
        now: Timestamp,
    ) -> Result<(), WriteRefusal> {
        self.writes += 1;
        self.changes += 1;
        match action {
            PlanAction::Apply(desired) | PlanAction::Restore { desired, .. } => {
                let owners = desired.metadata().owner_references.iter().flatten();
                // What an owner that is gone writes is collected with it.
                if owners
                    .into_iter()
                    .any(|owner| Some(&owner.uid) != self.object.metadata.uid.as_ref())
                {
                    return Err(WriteRefusal::Conflict);
                }
                let seconds = now.duration_since(START).as_secs();
                self.apply_times.entry(desired.target()).or_default().push(seconds);
                self.apply(desired, now);
            }
            PlanAction::Adopt { kind: ManagedKind::ReplicaSet, name, uid, .. } => {
                let set = self
                    .replica_sets
                    .iter_mut()
                    .find(|set| set.view.name == *name && set.view.uid == *uid);
                set.ok_or(WriteRefusal::Conflict)?.view.orphaned = false;
            }
            PlanAction::Adopt { name, owner, .. } => {
                let view = self.services.get_mut(name).ok_or(WriteRefusal::Conflict)?;
                (view.owners, view.controller) = (vec![owner.uid.clone()], Some(owner.uid.clone()));
            }
            PlanAction::WriteReplicas { replicas } => {
                if self.object.spec.replicas.is_some() {
                    return Err(WriteRefusal::Conflict);
                }
                self.edit(|object| object.spec.replicas = Some(*replicas));
            }
            PlanAction::Scale { name, uid, replicas } => {
                let set = self
                    .replica_sets
                    .iter_mut()
                    .find(|set| set.view.name == *name && set.view.uid == *uid);
                set.ok_or(WriteRefusal::Conflict)?.scale(*replicas);
            }
            PlanAction::Pin { name, uid, digest } => {
                let set = self
                    .replica_sets
                    .iter_mut()
                    .find(|set| set.view.name == *name && set.view.uid == *uid);
                set.ok_or(WriteRefusal::Conflict)?.pin(digest);
            }
            PlanAction::Mark { name, uid, marks } => {
                let set = self
                    .replica_sets
                    .iter_mut()
                    .find(|set| set.view.name == *name && set.view.uid == *uid);
                set.ok_or(WriteRefusal::Conflict)?.view.marks = marks.clone();
            }
            PlanAction::Evict { name, .. } => {
                // The budget of every world is one pod, the default.
                let goes = self.replica_sets.iter_mut().find_map(|set| set.try_evict(name));
                goes.filter(|goes| *goes).ok_or(WriteRefusal::Conflict)?;
            }
            PlanAction::Delete { kind: ManagedKind::ReplicaSet, name, uid } => {
                let before = self.replica_sets.len();
                self.replica_sets.retain(|set| set.view.name != *name || set.view.uid != *uid);
                if before == self.replica_sets.len() {
                    return Err(WriteRefusal::Conflict);
                }
            }
            PlanAction::Delete { kind: ManagedKind::Service, name, .. } => {
                drop(self.services.remove(name))
            }
            PlanAction::Delete { kind: ManagedKind::HorizontalPodAutoscaler, name, .. }
                if name == GATEWAY =>
            {
                self.gateway.autoscaler = None;
            }
            PlanAction::Delete { kind: ManagedKind::HorizontalPodAutoscaler, name, .. }
                if name.ends_with("-worker") =>
            {
                self.worker_autoscaler = None;
            }
            PlanAction::Delete { kind: ManagedKind::HorizontalPodAutoscaler, .. } => {
                self.autoscaler = None
            }
            PlanAction::Delete { kind: ManagedKind::Deployment, .. } => self.worker = None,
            PlanAction::Delete { kind: ManagedKind::NetworkPolicy, name, .. }
                if name == GATEWAY =>
            {
                self.gateway.network_policy = None;
            }
            PlanAction::Delete { kind: ManagedKind::NetworkPolicy, name, .. } => {
                drop(self.policies.remove(name))
            }
            // A plan deletes nothing else.
            PlanAction::Delete { .. } => return Err(WriteRefusal::Conflict),
        }
        Ok(())
    }

    fn apply(&mut self, desired: &DesiredObject, now: Timestamp) {
        let uid = self.object.metadata.uid.clone().unwrap_or_default();
        let view = applied_object(desired, self.next_uid(), uid);
        match desired {
            DesiredObject::ReplicaSet(_) => self.apply_replica_set(desired, now),
            DesiredObject::Service(_) if is_shared(desired) => self.gateway.service = Some(view),
            DesiredObject::Service(service) => {
                self.services.insert(service.metadata.name.clone().unwrap_or_default(), view);
            }
            DesiredObject::HorizontalPodAutoscaler(_) if is_shared(desired) => {
                self.gateway.autoscaler = Some(view)
            }
            DesiredObject::HorizontalPodAutoscaler(it)
                if it.metadata.name != self.object.metadata.name =>
            {
                self.worker_autoscaler = Some(view);
            }
            DesiredObject::HorizontalPodAutoscaler(_) => self.autoscaler = Some(view),
            DesiredObject::PodDisruptionBudget(budget)
                if budget.metadata.name == self.object.metadata.name =>
            {
                self.budget = Some(view);
            }
            DesiredObject::PodDisruptionBudget(_) => self.gateway.disruption_budget = Some(view),
            DesiredObject::ServiceAccount(_) => self.gateway.service_account = Some(view),
            DesiredObject::RoleBinding(_) => self.gateway.role_binding = Some(view),
            DesiredObject::Deployment(_) if !is_shared(desired) => self.worker = Some(view),
            DesiredObject::Deployment(_) => self.gateway.deployment = Some(view),
            DesiredObject::NetworkPolicy(_) if is_shared(desired) => {
                self.gateway.network_policy = Some(view)
            }
            DesiredObject::NetworkPolicy(_) => {
                drop(self.policies.insert(desired.name().to_owned(), view))
            }
        }
    }

    /// Server-side apply of a ReplicaSet: one that exists gets the replicas of the configuration.
    fn apply_replica_set(&mut self, whole: &DesiredObject, now: Timestamp) {
        let DesiredObject::ReplicaSet(desired) = whole else { return };
        let name = whole.name();
        if let Some(set) = self.replica_sets.iter_mut().find(|set| set.view.name == name) {
            set.scale(desired.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1));
            set.view.managed_fields = fields::fields_after_apply(whole);
            whole.applied_hash().clone_into(&mut set.view.applied_hash);
            set.view.images = container_images(desired);
            return;
        }
        let Some(view) = applied_replica_set(whole, self.next_uid(), now) else { return };
        let truth = self
            .behaviors
            .get(&view.version)
            .copied()
            .unwrap_or_else(|| ModelQuality::Good.behavior());
        self.replica_sets.push(SimulatedReplicaSet::new(view, truth));
    }
}
