//! The API server: objects, resource versions, conflicts.

mod writes;

use std::collections::BTreeMap;

use serde_json::Value;
use slipway_core::fields::ManagedFields;
use slipway_core::observed::{GatewayPod, GatewayView, ObjectView, ObservedState};
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};
use slipway_objects::settings::PlanSettings;
use slipway_objects::{ManagedKind, ObjectTarget};
use slipway_testkit::plan_settings;

use crate::behavior::ModelBehavior;
use crate::pods::SimulatedReplicaSet;

/// Why a write was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteRefusal {
    /// Its resourceVersion or UID differs from that of the object, or the disruption budget
    /// currently blocks the eviction of the pod.
    Conflict,
}

/// Whether the operator owns no field of an object any more.
fn is_altered(managed: &ManagedFields) -> bool {
    managed.fields.as_deref() == Some(&Value::Null)
}

/// All objects of the API server.
pub(crate) struct SimulatedCluster {
    pub(crate) object: ModelDeployment,
    /// resourceVersion of the object.
    pub(crate) version: u64,
    pub(crate) replica_sets: Vec<SimulatedReplicaSet>,
    children: BTreeMap<ObjectTarget, ObjectView>,
    gateway: GatewayView,
    /// Digests of the models at the URIs of versions, if they were overwritten.
    pub(crate) store: BTreeMap<String, String>,
    /// The behaviour of each version.
    pub(crate) behaviors: BTreeMap<String, ModelBehavior>,
    /// The operator's image of the model server; later ones may be other programs.
    pub(crate) runtime_image: String,
    /// Time of the last change of the weights, in seconds.
    pub(crate) weights_at: i64,
    /// Increases with every change that a watch would report.
    pub(crate) changes: u64,
    pub(crate) writes: u64,
    uids: u64,
    /// When each object was applied, in seconds.
    pub(crate) apply_times: BTreeMap<ObjectTarget, Vec<i64>>,
}

impl SimulatedCluster {
    pub(crate) fn new(object: ModelDeployment) -> Self {
        Self {
            object,
            version: 1,
            replica_sets: Vec::new(),
            children: BTreeMap::new(),
            gateway: GatewayView::default(),
            store: BTreeMap::new(),
            behaviors: BTreeMap::new(),
            runtime_image: "runtime:1".to_owned(),
            weights_at: 0,
            changes: 1,
            writes: 0,
            uids: 0,
            apply_times: BTreeMap::new(),
        }
    }

    /// The state that the watches have reported by now.
    pub(crate) fn observe(&self, pods: Vec<GatewayPod>) -> ObservedState {
        ObservedState {
            object: self.object.clone(),
            replica_sets: self.replica_sets.iter().map(|set| set.view.clone()).collect(),
            children: self.children.clone(),
            gateway: GatewayView { pods, ..self.gateway.clone() },
            pods: self.replica_sets.iter().flat_map(SimulatedReplicaSet::pod_views).collect(),
            pod_problems: self
                .replica_sets
                .iter()
                .flat_map(SimulatedReplicaSet::pod_problems)
                .collect(),
            fetched_models: self
                .replica_sets
                .iter()
                .flat_map(SimulatedReplicaSet::fetched_models)
                .collect(),
            conflicts: Vec::new(),
            refusals: Some(BTreeMap::new()),
            disturbances: BTreeMap::new(),
            evidence: None,
            settings: PlanSettings { runtime_image: self.runtime_image.clone(), ..plan_settings() },
        }
    }

    /// The Service and the disruption budget are the ModelDeployment's own, others the gateway's.
    fn own_child(&self, kind: ManagedKind) -> Option<ObjectTarget> {
        let own = matches!(kind, ManagedKind::Service | ManagedKind::PodDisruptionBudget);
        let name = self.object.metadata.name.as_deref().filter(|_| own)?;
        Some(ObjectTarget::new(kind, name))
    }

    /// Somebody deletes the child of a kind.
    pub(crate) fn delete_child(&mut self, kind: ManagedKind) {
        match self.own_child(kind) {
            Some(target) => self.children.remove(&target),
            None => self.gateway.objects.remove(&kind),
        };
        self.changes += 1;
    }

    /// Somebody changes a child of a kind, if it is as it was applied.
    pub(crate) fn alter_child(&mut self, kind: ManagedKind) -> bool {
        let managed = match (kind, self.own_child(kind)) {
            (ManagedKind::ReplicaSet, _) => {
                self.replica_sets.first_mut().map(|set| &mut set.view.managed_fields)
            }
            (_, Some(target)) => {
                self.children.get_mut(&target).map(|view| &mut view.managed_fields)
            }
            (kind, None) => {
                self.gateway.objects.get_mut(&kind).map(|view| &mut view.managed_fields)
            }
        };
        let Some(managed) = managed.filter(|it| !is_altered(it)) else { return false };
        *managed = ManagedFields {
            fields: Some(Value::Null.into()),
            changed_by: Some("somebody".to_owned()),
        };
        self.changes += 1;
        true
    }

    /// Number of objects, except ReplicaSets, that differ from what was applied.
    pub(crate) fn altered_count(&self) -> usize {
        let views = self.children.values().chain(self.gateway.objects.values());
        views.filter(|view| is_altered(&view.managed_fields)).count()
    }

    /// A user deletes the ModelDeployment without its children, and creates it again.
    pub(crate) fn recreate_orphaned(&mut self) {
        let uid = self.next_uid();
        self.object.metadata.uid = Some(uid);
        self.object.status = None;
        for set in &mut self.replica_sets {
            set.view.orphaned = true;
        }
        for view in self.children.values_mut().chain(self.gateway.objects.values_mut()) {
            view.owners.clear();
            view.controller = None;
        }
        self.bump_version();
    }

    pub(crate) fn replica_set(&self, revision: &str) -> Option<&SimulatedReplicaSet> {
        self.replica_sets.iter().find(|set| set.view.revision == revision)
    }

    /// Another client changes the spec or metadata.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut ModelDeployment)) {
        let spec = self.object.spec.clone();
        change(&mut self.object);
        if self.object.spec != spec
            && let Some(generation) = self.object.metadata.generation.as_mut()
        {
            *generation += 1;
        }
        self.bump_version();
    }

    fn bump_version(&mut self) {
        self.version += 1;
        self.changes += 1;
    }

    /// Writes the status if the writer has seen the newest object.
    pub(crate) fn write_status(
        &mut self,
        status: &ModelDeploymentStatus,
        seen: u64,
        now: i64,
    ) -> Result<(), WriteRefusal> {
        self.writes += 1;
        if seen != self.version {
            return Err(WriteRefusal::Conflict);
        }
        let weights = |status: Option<&ModelDeploymentStatus>| {
            status
                .and_then(|it| it.traffic.clone())
                .map(|it| (it.generation, it.backends, it.preview_revision))
        };
        // The API server stores whole seconds; clients see what it returns.
        let value = serde_json::to_value(status).unwrap_or_default();
        let stored = serde_json::from_value(value).unwrap_or_default();
        if self.object.status.as_ref() == Some(&stored) {
            // Nothing is stored, and no watch reports it.
            self.writes -= 1;
            return Ok(());
        }
        if weights(self.object.status.as_ref()) != weights(Some(&stored)) {
            self.weights_at = now;
        }
        self.object.status = Some(stored);
        self.bump_version();
        Ok(())
    }

    fn next_uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }
}
