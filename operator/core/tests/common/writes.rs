//! What a plan says, done at once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::json;
use slipway_core::action::Action;
use slipway_core::build;
use slipway_core::desired::{Desired, Kind};
use slipway_core::fields::{self, Change};
use slipway_core::marks::Marks;
use slipway_core::observed::{Disturbance, ModelDigest, ObjectView, ReplicaSetView};

use super::World;

impl World {
    /// What an autoscaler, `kubectl scale` and a plan do: the scale subresource notes its manager.
    pub fn scale_model(&mut self, replicas: i32) {
        self.edit(json!({ "replicas": replicas }));
        let fields = FieldsV1(json!({ "f:spec": { "f:replicas": {} } }));
        self.observed.object.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            subresource: Some("scale".to_owned()),
            fields_v1: Some(fields),
            ..ManagedFieldsEntry::default()
        }]);
    }

    pub(super) fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Apply(desired) => self.apply(desired, None),
            Action::Restore { desired, change } => {
                self.apply(desired, Some(change));
                let note = change.note(&desired.target());
                self.events.push(format!("{}: {}", note.reason, note.note));
            }
            Action::Adopt { kind, name, uid, owner } => {
                self.writes.push(format!("adopt {kind:?} {name}"));
                match kind {
                    Kind::ReplicaSet => {
                        let mut sets = self.observed.replica_sets.iter_mut();
                        sets.find(|set| set.name == *name && set.uid == *uid).unwrap().orphaned = false;
                    }
                    _ => {
                        let view = self.observed.services.get_mut(name).unwrap();
                        (view.owners, view.controller) = (vec![owner.uid.clone()], Some(owner.uid.clone()));
                    }
                }
            }
            Action::WriteReplicas { replicas } => {
                self.writes.push(format!("write replicas {replicas}"));
                self.scale_model(*replicas);
            }
            Action::Scale { name, uid, replicas } => {
                self.writes.push(format!("scale {name} {replicas}"));
                let set =
                    self.observed.replica_sets.iter_mut().find(|set| set.name == *name && set.uid == *uid).unwrap();
                set.desired = *replicas;
                set.observed = false;
            }
            Action::Pin { name, digest, .. } => {
                self.writes.push(format!("pin {name} {digest}"));
                let set = self.observed.replica_sets.iter_mut().find(|set| set.name == *name).unwrap();
                set.digest = ModelDigest::Pinned(digest.clone());
            }
            Action::Mark { name, marks, .. } => {
                self.writes.push(format!("mark {name}"));
                self.observed.replica_sets.iter_mut().find(|set| set.name == *name).unwrap().marks = marks.clone();
            }
            Action::Evict { name, uid } => {
                self.writes.push(format!("evict {name}"));
                let there = self.observed.pods.iter().position(|pod| pod.name == *name && pod.uid == *uid).unwrap();
                self.observed.pods.remove(there);
            }
            Action::Delete { kind, name, .. } => {
                self.writes.push(format!("delete {kind:?} {name}"));
                match kind {
                    Kind::ReplicaSet => self.observed.replica_sets.retain(|set| set.name != *name),
                    Kind::Service => drop(self.observed.services.remove(name)),
                    Kind::HorizontalPodAutoscaler if name == "slipway-gateway" => {
                        self.observed.gateway.autoscaler = None;
                    }
                    Kind::HorizontalPodAutoscaler if name.ends_with("-worker") => {
                        self.observed.worker_autoscaler = None
                    }
                    Kind::HorizontalPodAutoscaler => self.observed.autoscaler = None,
                    Kind::Deployment => self.observed.worker = None,
                    Kind::NetworkPolicy if name == build::GATEWAY => self.observed.gateway.network_policy = None,
                    Kind::NetworkPolicy => drop(self.observed.network_policies.remove(name)),
                }
            }
        }
    }

    fn apply(&mut self, desired: &Desired, change: Option<&Change>) {
        let uid = self.observed.object.metadata.uid.clone().unwrap();
        let view = ObjectView {
            uid: "x".into(),
            applied: desired.stamp().to_owned(),
            managed: fields::of(desired),
            owners: desired.metadata().owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect(),
            controller: (!build::is_shared(desired)).then_some(uid),
            failure: String::new(),
            desired_replicas: None,
            rolled_out: false,
        };
        let target = desired.target();
        let before = self.observed.disturbances.get(&target);
        let after = Disturbance::after(before, desired.stamp(), change, None, self.now);
        self.observed.disturbances.insert(target, after);
        let mut word = "apply ".to_owned();
        match desired {
            Desired::ReplicaSet(set) => {
                self.created += 1;
                word += set.metadata.name.as_deref().unwrap();
                let there = self.observed.replica_sets.iter_mut().find(|it| it.name == desired.name());
                if let Some(there) = there {
                    (there.managed, there.applied) = (view.managed, view.applied);
                    there.images = build::images(set);
                    self.writes.push(word);
                    return;
                }
                let meta = &set.metadata;
                let labels = meta.labels.as_ref().unwrap();
                self.observed.replica_sets.push(ReplicaSetView {
                    name: meta.name.clone().unwrap(),
                    uid: format!("set-{}", self.created),
                    revision: labels[slipway_crds::labels::REVISION].clone(),
                    version: meta.annotations.as_ref().unwrap()[slipway_crds::labels::VERSION].clone(),
                    digest: ModelDigest::of_annotation(
                        meta.annotations.as_ref().unwrap().get(slipway_crds::labels::MODEL_DIGEST).map(String::as_str),
                    ),
                    failure: String::new(),
                    marks: Marks::default(),
                    created_at: self.now,
                    desired: set.spec.as_ref().unwrap().replicas.unwrap(),
                    current: 0,
                    ready: 0,
                    available: 0,
                    observed: false,
                    owned: true,
                    orphaned: false,
                    applied: view.applied,
                    images: build::images(set),
                    managed: view.managed,
                    deleting: false,
                });
            }
            Desired::Service(service) if service.metadata.name.as_deref() == Some("slipway-gateway") => {
                self.observed.gateway.service = Some(view);
            }
            Desired::Service(service) => {
                word += service.metadata.name.as_deref().unwrap();
                self.observed.services.insert(service.metadata.name.clone().unwrap(), view);
            }
            Desired::HorizontalPodAutoscaler(it) if it.metadata.name.as_deref() == Some("slipway-gateway") => {
                self.observed.gateway.autoscaler = Some(view);
            }
            Desired::HorizontalPodAutoscaler(it) if it.metadata.name.as_deref() == Some("digits-worker") => {
                self.observed.worker_autoscaler = Some(view);
            }
            Desired::HorizontalPodAutoscaler(_) => self.observed.autoscaler = Some(view),
            Desired::Deployment(it) if it.metadata.name.as_deref() == Some("digits-worker") => {
                let template = it.spec.as_ref().unwrap().template.metadata.as_ref().unwrap();
                word += &format!("worker of {}", template.labels.as_ref().unwrap()[slipway_crds::labels::REVISION]);
                self.observed.worker = Some(view);
            }
            Desired::PodDisruptionBudget(budget) if budget.metadata.name.as_deref() == Some("digits") => {
                self.observed.disruption_budget = Some(view);
            }
            Desired::PodDisruptionBudget(_) => self.observed.gateway.disruption_budget = Some(view),
            Desired::ServiceAccount(_) => self.observed.gateway.service_account = Some(view),
            Desired::RoleBinding(_) => self.observed.gateway.role_binding = Some(view),
            Desired::Deployment(_) => self.observed.gateway.deployment = Some(view),
            Desired::NetworkPolicy(_) if build::is_shared(desired) => {
                self.observed.gateway.network_policy = Some(view);
            }
            Desired::NetworkPolicy(_) => {
                self.observed.network_policies.insert(desired.name().to_owned(), view);
            }
        }
        self.writes.push(word);
    }
}
