//! A small world for tests of the plan: it executes a plan at once and without faults. The
//! simulator covers all other behaviour.
#![allow(dead_code, unreachable_pub)]

mod reports;
pub mod rollouts;
mod writes;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use slipway_core::action::ReconcilePlan;
use slipway_core::observed::{
    FetchedModel, GatewayPod, GatewayReport, GatewayView, ModelDigest, ObservedState, PodView,
    ReplicaSetView,
};
use slipway_core::plan::plan;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus, RolloutStage};
use slipway_testkit::{merge_json, plan_settings};

/// The digest that the spec names.
pub const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// The digest that pods find if the spec names none.
pub const FOUND: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

pub const UID: &str = "4d2c1a9e-0000-4000-8000-000000000001";

/// The observed state, and what the tests did to it.
#[derive(Clone, Debug)]
pub struct World {
    pub observed: ObservedState,
    pub now: Timestamp,
    /// Writes to the API server so far, one word for each.
    pub writes: Vec<String>,
    pub events: Vec<String>,
    pub last: Option<ReconcilePlan>,
    created: i64,
    /// Number of pods that were created.
    made: u32,
    serial: u64,
}

impl World {
    /// One ModelDeployment with three replicas, gates `errors` only, and this spec merged in.
    pub fn new(spec: Value) -> Self {
        let mut object: Value = json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": { "name": "digits", "namespace": "ml", "uid": UID, "generation": 1 },
            "spec": { "model": { "uri": "http://store/v1", "version": "v1", "digest": DIGEST }, "replicas": 3,
                      "analysis": { "mode": "Custom", "gates": [{ "name": "errors", "type": "ErrorRate" }] } }
        });
        merge_json(&mut object["spec"], spec);
        let object: ModelDeployment = serde_json::from_value(object).unwrap();
        let observed = ObservedState {
            object,
            replica_sets: vec![],
            children: BTreeMap::new(),
            gateway: GatewayView {
                pods: vec![pod("gateway-a"), pod("gateway-b")],
                ..GatewayView::default()
            },
            pods: vec![],
            pod_problems: vec![],
            fetched_models: vec![],
            conflicts: vec![],
            refusals: Some(BTreeMap::new()),
            disturbances: BTreeMap::new(),
            evidence: None,
            settings: plan_settings(),
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Self {
            observed,
            now,
            writes: vec![],
            events: vec![],
            last: None,
            created: 0,
            made: 0,
            serial: 0,
        }
    }

    /// A world whose first version serves everything, confirmed and at rest.
    pub fn serving(spec: Value) -> Self {
        let mut world = Self::new(spec);
        for _ in 0..6 {
            world.tick(1);
        }
        assert_eq!(world.stable(), "v1");
        assert!(world.plan().actions.is_empty());
        world.writes.clear();
        world.events.clear();
        world
    }

    /// Changes the spec.
    pub fn edit(&mut self, spec: Value) {
        let mut all = serde_json::to_value(&self.observed.object.spec).unwrap();
        merge_json(&mut all, spec);
        self.observed.object.spec = serde_json::from_value(all).unwrap();
        *self.observed.object.metadata.generation.as_mut().unwrap() += 1;
    }

    /// Changes the version in the spec.
    pub fn version(&mut self, version: &str) {
        self.edit(
            json!({ "model": { "uri": format!("http://store/{version}"), "version": version } }),
        );
    }

    /// Sets the annotation of a user command.
    pub fn command(&mut self, command: &str, nonce: &str) {
        let annotations = self.observed.object.metadata.annotations.get_or_insert_default();
        annotations.insert(format!("ml.slipway.dev/{command}"), nonce.into());
    }

    /// The plan for the current state, without executing it.
    pub fn plan(&self) -> ReconcilePlan {
        let plan = plan(&self.observed, self.now);
        let broken = slipway_core::check::check_plan(&self.observed, &plan, self.now);
        assert!(broken.is_empty(), "{broken:#?}");
        plan
    }

    /// Plans and executes the plan.
    pub fn step(&mut self) -> ReconcilePlan {
        let plan = self.plan();
        if self.observed.object.status.as_ref() != Some(&plan.status) {
            self.writes.push("status".into());
            self.observed.object.status = Some(stored(&plan.status));
        }
        for action in &plan.actions {
            self.carry_out(action);
        }
        for note in &plan.events {
            self.writes.push(format!("event {}", note.reason));
            self.events.push(format!("{}: {}", note.reason, note.note));
        }
        self.last = Some(plan.clone());
        plan
    }

    /// One round: a plan is executed, pods follow, gateways follow, time passes.
    pub fn tick(&mut self, seconds: i64) -> ReconcilePlan {
        let plan = self.step();
        self.pods_follow();
        self.gateways_follow();
        self.pass(seconds);
        plan
    }

    /// Runs rounds without passing time until nothing changes.
    pub fn settle(&mut self) {
        let picture = |world: &Self| {
            let observed = &world.observed;
            (
                observed.object.status.clone(),
                observed.replica_sets.clone(),
                observed.gateway.clone(),
            )
        };
        for _ in 0..20 {
            let before = picture(self);
            self.tick(0);
            if before == picture(self) {
                return;
            }
        }
        panic!("does not come to rest: {:#?}", self.writes);
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Makes all requested pods exist and be ready.
    pub fn pods_follow(&mut self) {
        self.observed.fetched_models.clear();
        for set in &mut self.observed.replica_sets {
            (set.current, set.ready, set.available, set.is_observed) =
                (set.desired, set.desired, set.desired, true);
            let of = |pod: &PodView| pod.replica_set_uid.as_ref() == Some(&set.uid);
            let (mut own, others) =
                std::mem::take(&mut self.observed.pods).into_iter().partition::<Vec<_>, _>(of);
            own.retain(|pod| !pod.deleting);
            own.truncate(usize::try_from(set.desired).unwrap());
            while own.len() < usize::try_from(set.desired).unwrap() {
                self.made += 1;
                let name = format!("{}-{}", set.name, self.made);
                let (uid, set) = (format!("pod-{}", self.made), Some(set.uid.clone()));
                own.push(PodView {
                    name,
                    uid,
                    replica_set_uid: set,
                    created_at: self.now,
                    ready: false,
                    deleting: false,
                });
            }
            own.iter_mut().for_each(|pod| pod.ready = true);
            self.observed.pods = others.into_iter().chain(own).collect();
            if set.digest != ModelDigest::Unreported && set.desired > 0 {
                let digest = set.digest.known_digest().unwrap_or(FOUND).to_owned();
                let (revision, pod) = (set.revision.clone(), format!("{}-x", set.name));
                self.observed.fetched_models.push(FetchedModel { revision, pod, digest });
            }
        }
    }

    /// Makes every gateway apply the written weights.
    pub fn gateways_follow(&mut self) {
        for index in 0..self.observed.gateway.pods.len() {
            self.gateway_follows(index);
        }
    }

    pub fn gateway_follows(&mut self, index: usize) {
        let generation = self.status().traffic.as_ref().map_or(0, |traffic| traffic.generation);
        let pod = &mut self.observed.gateway.pods[index];
        pod.unreachable = None;
        let report = pod.report.get_or_insert_default();
        if report.generation != generation {
            *report = GatewayReport { generation, ..GatewayReport::default() };
        }
    }

    pub fn status(&self) -> ModelDeploymentStatus {
        self.observed.object.status.clone().unwrap_or_default()
    }

    pub fn stage(&self) -> Option<RolloutStage> {
        self.status().rollout.map(|rollout| rollout.stage)
    }

    pub fn stable(&self) -> String {
        self.status().stable.map(|it| it.version).unwrap_or_default()
    }

    pub fn condition(&self, kind: &str) -> Condition {
        self.status().conditions.into_iter().find(|it| it.type_ == kind).unwrap()
    }

    /// Status and reason of a condition, or `absent`.
    pub fn says(&self, kind: &str) -> String {
        let all = self.status().conditions;
        let found = all.iter().find(|condition| condition.type_ == kind);
        found.map_or_else(|| "absent".to_owned(), |it| format!("{} {}", it.status, it.reason))
    }

    pub fn set(&self, version: &str) -> &ReplicaSetView {
        self.observed.replica_sets.iter().find(|set| set.version == version).unwrap()
    }

    pub fn set_mut(&mut self, version: &str) -> &mut ReplicaSetView {
        self.observed.replica_sets.iter_mut().find(|set| set.version == version).unwrap()
    }

    /// Requested replicas by version.
    pub fn sizes(&self) -> Vec<(String, i32)> {
        self.observed.replica_sets.iter().map(|set| (set.version.clone(), set.desired)).collect()
    }

    /// Weights by version, in thousandths.
    pub fn weights(&self) -> Vec<(String, i32)> {
        let version = |revision: &str| {
            let set = self.observed.replica_sets.iter().find(|set| set.revision == revision);
            set.map_or_else(|| revision.to_owned(), |set| set.version.clone())
        };
        let traffic = self.status().traffic.unwrap_or_default();
        traffic.backends.iter().map(|it| (version(&it.revision), it.weight_permille)).collect()
    }

    /// Runs rounds with good evidence until a stage at a step (from 0) is reached.
    pub fn until(&mut self, stage: RolloutStage, step: i32) -> &mut Self {
        for _ in 0..200 {
            let rollout = self.status().rollout;
            if rollout.is_some_and(|it| it.stage == stage && it.step_index == step) {
                return self;
            }
            if self.stage() == Some(RolloutStage::Analyzing) {
                self.good();
            }
            self.tick(1);
        }
        panic!("never reaches {stage:?} at {step}: {:#?}", self.status());
    }

    /// Runs rounds with good evidence until no rollout is in progress.
    pub fn finish(&mut self) -> &mut Self {
        self.step();
        for _ in 0..400 {
            if self.status().rollout.is_none() {
                return self;
            }
            if self.stage() == Some(RolloutStage::Analyzing) {
                self.good();
            }
            self.tick(1);
        }
        panic!("never ends: {:#?}", self.status());
    }

    /// Requested size of a version's ReplicaSet.
    pub fn size(&self, version: &str) -> i32 {
        self.set(version).desired
    }
}

/// A status as the API server returns it.
pub fn stored(status: &ModelDeploymentStatus) -> ModelDeploymentStatus {
    serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap()
}

fn pod(name: &str) -> GatewayPod {
    GatewayPod { name: name.into(), ready: true, report: None, unreachable: None }
}
