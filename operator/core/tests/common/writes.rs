//! Executes the actions of a plan at once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::json;
use slipway_core::action::PlanAction;
use slipway_core::fields::ForeignChange;
use slipway_core::observed::{ModelDigest, ObjectDisturbance};
use slipway_objects::desired::DesiredObject;
use slipway_objects::{GATEWAY, ManagedKind, ObjectTarget};
use slipway_testkit::{applied_object, applied_replica_set};

use super::World;

impl World {
    /// The write of an autoscaler, `kubectl scale` or a plan: the scale subresource records its
    /// manager.
    pub fn scale_model(&mut self, replicas: i32) {
        self.edit(json!({ "replicas": replicas }));
        let fields = FieldsV1(json!({ "f:spec": { "f:replicas": {} } }));
        self.observed.object.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            subresource: Some("scale".to_owned()),
            fields_v1: Some(fields),
            ..ManagedFieldsEntry::default()
        }]);
    }

    pub(super) fn carry_out(&mut self, action: &PlanAction) {
        match action {
            PlanAction::Apply(desired) => self.apply(desired, None),
            PlanAction::Restore { desired, change } => {
                self.apply(desired, Some(change));
                let note = change.to_event(&desired.target());
                self.events.push(format!("{}: {}", note.reason, note.note));
            }
            PlanAction::Adopt { kind, name, uid, owner } => {
                self.writes.push(format!("adopt {kind:?} {name}"));
                match kind {
                    ManagedKind::ReplicaSet => {
                        let mut sets = self.observed.replica_sets.iter_mut();
                        sets.find(|set| set.name == *name && set.uid == *uid).unwrap().orphaned =
                            false;
                    }
                    _ => {
                        let target = ObjectTarget::new(*kind, name);
                        let view = self.observed.children.get_mut(&target).unwrap();
                        (view.owners, view.controller) =
                            (vec![owner.uid.clone()], Some(owner.uid.clone()));
                    }
                }
            }
            PlanAction::WriteReplicas { replicas } => {
                self.writes.push(format!("write replicas {replicas}"));
                self.scale_model(*replicas);
            }
            PlanAction::Scale { name, uid, replicas } => {
                self.writes.push(format!("scale {name} {replicas}"));
                let set = self
                    .observed
                    .replica_sets
                    .iter_mut()
                    .find(|set| set.name == *name && set.uid == *uid)
                    .unwrap();
                set.desired = *replicas;
                set.is_observed = false;
            }
            PlanAction::Pin { name, digest, .. } => {
                self.writes.push(format!("pin {name} {digest}"));
                let set =
                    self.observed.replica_sets.iter_mut().find(|set| set.name == *name).unwrap();
                set.digest = ModelDigest::Pinned(digest.clone());
            }
            PlanAction::Mark { name, marks, .. } => {
                self.writes.push(format!("mark {name}"));
                self.observed
                    .replica_sets
                    .iter_mut()
                    .find(|set| set.name == *name)
                    .unwrap()
                    .marks = marks.clone();
            }
            PlanAction::Evict { name, uid } => {
                self.writes.push(format!("evict {name}"));
                let there = self
                    .observed
                    .pods
                    .iter()
                    .position(|pod| pod.name == *name && pod.uid == *uid)
                    .unwrap();
                self.observed.pods.remove(there);
            }
            PlanAction::Delete { kind, name, .. } => {
                self.writes.push(format!("delete {kind:?} {name}"));
                if *kind == ManagedKind::ReplicaSet {
                    self.observed.replica_sets.retain(|set| set.name != *name);
                } else if name == GATEWAY {
                    self.observed.gateway.objects.remove(kind);
                } else {
                    self.observed.children.remove(&ObjectTarget::new(*kind, name));
                }
            }
        }
    }

    fn apply(&mut self, desired: &DesiredObject, change: Option<&ForeignChange>) {
        let uid = self.observed.object.metadata.uid.clone().unwrap();
        let view = applied_object(desired, "x".into(), uid);
        let target = desired.target();
        let before = self.observed.disturbances.get(&target);
        let after =
            ObjectDisturbance::after_apply(before, desired.applied_hash(), change, None, self.now);
        self.observed.disturbances.insert(target, after);
        let mut word = "apply ".to_owned();
        match desired {
            DesiredObject::ReplicaSet(set) => {
                self.created += 1;
                word += set.metadata.name.as_deref().unwrap();
                let there =
                    self.observed.replica_sets.iter_mut().find(|it| it.name == desired.name());
                if let Some(there) = there {
                    (there.managed_fields, there.applied_hash) =
                        (view.managed_fields, view.applied_hash);
                    there.images = slipway_objects::container_images(set);
                    self.writes.push(word);
                    return;
                }
                let uid = format!("set-{}", self.created);
                let made = applied_replica_set(desired, uid, self.now).unwrap();
                self.observed.replica_sets.push(made);
            }
            _ if slipway_objects::is_shared(desired) => {
                self.observed.gateway.objects.insert(desired.kind(), view);
            }
            _ => {
                match desired {
                    DesiredObject::Service(_) => word += desired.name(),
                    DesiredObject::Deployment(worker) => {
                        let template = &worker.spec.as_ref().unwrap().template;
                        let labels = template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
                        word += &format!("worker of {}", labels[slipway_crds::labels::REVISION]);
                    }
                    _ => {}
                }
                self.observed.children.insert(desired.target(), view);
            }
        }
        self.writes.push(word);
    }
}
