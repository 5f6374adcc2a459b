//! What the operator reports, and the little that it must remember.
//!
//! The schema leaves words open (role, stage, outcome, verdict): a definition that is older than
//! the operator must refuse none of its writes, because weights and aborts travel in them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rollout::{RolloutRecord, RolloutStatus};
use super::units::permille;

/// Observed state of a ModelDeployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions. `Ready` is always there: the stable revision serves, whatever a rollout does.
    /// The others are there while they hold: `Reconciling` (a rollout goes on, or
    /// pods are missing), `Stalled` (somebody has to change something), `GatePassed`,
    /// `RolledBack`, `Paused`, `Conflicted`, `GatewayOutdated`, `OutdatedImage`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// For people, in one word: the reason of what is wrong, else of what goes on, else of what
    /// serves. Tools read `conditions`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub state: String,

    /// For people: the message that belongs to `state`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,

    /// Where clients inside the cluster reach the model: `http://<name>.<namespace>`, by HTTP and gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub url: Option<String>,

    /// Pods of the revision that has most; for the scale subresource. A rollout does not change
    /// it: pods that a candidate has besides are not those that an autoscaler asked for.
    #[serde(default)]
    pub replicas: i32,

    /// Selector of the pods of all revisions; for the scale subresource.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub selector: String,

    /// The newest `spec.restartTime` for which all pods were replaced and are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_time: Option<Time>,

    /// The revision that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionStatus>,

    /// The revision that is rolled out; absent when none is. What was taken back last is in
    /// `rollout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,

    /// The weights: what every gateway applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,

    /// Progress of the rollout of the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,

    /// Last verdict of every gate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub gates: Vec<GateStatus>,

    /// The last rollouts that ended, newest first, with their steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub history: Vec<RolloutRecord>,

    /// Commands of people that have been carried out: annotation to nonce.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 8))]
    pub handled_commands: BTreeMap<String, String>,
}

/// One revision as observed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// The revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Version for people.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub version: String,
    /// Digest of the model that its pods serve; absent until the first pod has fetched it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// Share of the traffic that was asked for, for people (`5%`, `0.5%`).
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub weight: String,
    /// Replicas asked for.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
}

/// The weights. Backends sum to 100 %; the generation grows with every change.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    /// Grows by one with every change of the backends.
    #[serde(default)]
    pub generation: i64,
    /// Revisions and their shares.
    #[serde(default)]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["revision".into()]))]
    pub backends: Vec<TrafficBackend>,
    /// The revision behind the preview address, blue-green only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub preview_revision: Option<String>,
    /// The newest generation that every ready gateway confirmed.
    #[serde(default)]
    pub confirmed_generation: i64,
    /// When the current generation was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_time: Option<Time>,
    /// Requests that the candidate got since the weight was confirmed, as a share of all, for
    /// people (`5.1%`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub observed_candidate_share: Option<String>,
}

/// One revision's share.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TrafficBackend {
    /// The revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Its role: `Stable`, to which traffic returns, or `Candidate`, on trial.
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub role: RevisionRole,
    /// Its share: a percentage with at most one decimal (`5%`).
    #[serde(rename = "weight", with = "permille")]
    #[schemars(with = "String", length(max = 16))]
    pub weight_permille: i32,
}

/// Role of a revision in the split.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum RevisionRole {
    /// The revision to which traffic returns.
    Stable,
    /// The revision on trial.
    Candidate,
}

/// Last verdict of one gate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// Name of the gate.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The verdict: `Pass` (a regression worth catching is excluded), `Fail` (the candidate is
    /// worse), `NeedMoreData`, `NoData` or `ProviderDown`. Only the first advances,
    /// only the second takes back.
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub verdict: GateVerdict,
    /// Numbers behind it, for people: counts, rates, bounds, what is missing.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Evidence of the candidate: successes or events counted, or the value of a PromQL gate, as
    /// text.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub candidate: String,
    /// The same for stable.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub stable: String,
    /// Looks in a row that passed (positive) or failed (negative); PromQL gates only.
    #[serde(default)]
    pub consecutive: i32,
    /// When the reading was taken that `consecutive` counted last, so that no reading is counted
    /// twice; PromQL gates only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_look_time: Option<Time>,
}

/// A verdict. Only Pass advances; only Fail takes back.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateVerdict {
    /// A regression worth catching is excluded.
    Pass,
    /// The candidate is worse.
    Fail,
    /// There is evidence, and not enough of it.
    NeedMoreData,
    /// The provider answers, and has no usable data.
    NoData,
    /// The provider cannot be reached, or answers wrongly.
    ProviderDown,
}
