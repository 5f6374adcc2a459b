//! Effects of a plan's actions on the objects.

use jiff::Timestamp;
use slipway_core::action::PlanAction;
use slipway_core::fields;
use slipway_objects::desired::DesiredObject;
use slipway_objects::{GATEWAY, ManagedKind, ObjectTarget, container_images, is_shared};
use slipway_testkit::{applied_object, applied_replica_set};

use super::{SimulatedCluster, WriteRefusal};
use crate::behavior::ModelQuality;
use crate::clock::START;
use crate::pods::SimulatedReplicaSet;

impl SimulatedCluster {
    /// Executes an action.
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
                // Objects with a deleted owner are garbage-collected.
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
            PlanAction::Adopt { kind, name, owner, .. } => {
                let view = self.children.get_mut(&ObjectTarget::new(*kind, name));
                let view = view.ok_or(WriteRefusal::Conflict)?;
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
                // Every world has the default budget of one pod.
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
            PlanAction::Delete { kind, name, .. } if name == GATEWAY => {
                drop(self.gateway.objects.remove(kind))
            }
            PlanAction::Delete { kind, name, .. } => {
                drop(self.children.remove(&ObjectTarget::new(*kind, name)))
            }
        }
        Ok(())
    }

    fn apply(&mut self, desired: &DesiredObject, now: Timestamp) {
        let uid = self.object.metadata.uid.clone().unwrap_or_default();
        let view = applied_object(desired, self.next_uid(), uid);
        if desired.kind() == ManagedKind::ReplicaSet {
            self.apply_replica_set(desired, now);
        } else if is_shared(desired) {
            self.gateway.objects.insert(desired.kind(), view);
        } else {
            self.children.insert(desired.target(), view);
        }
    }

    /// Server-side apply of a ReplicaSet: an existing one gets the replicas of the configuration.
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
