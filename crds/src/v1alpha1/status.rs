//! What the operator reports, and the little state that it cannot observe in the cluster.
//!
//! The schema does not restrict the values of role, stage, outcome and verdict: a definition that
//! is older than the operator must not reject its writes, because weights and aborts are part of
//! them.

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
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions. `Ready` is always present: the stable revision serves, independent of any
    /// rollout. The others are present while they hold: `Reconciling` (a rollout is in progress,
    /// or pods are missing), `Stalled` (a user has to change something), `GatePassed`,
    /// `RolledBack`, `Paused`, `Conflicted`, `GatewayOutdated`, `OutdatedImage`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Summary in one word, for display: the reason of a problem if there is one, otherwise of
    /// what is in progress, otherwise of what serves. Tools read `conditions`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub state: String,

    /// Message that belongs to `state`, for display.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,

    /// Address at which clients inside the cluster reach the model: `http://<name>.<namespace>`, by
    /// HTTP and gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub url: Option<String>,

    /// Number of pods of the revision that has the most; for the scale subresource. A rollout does
    /// not change it, because an autoscaler did not request the additional pods of a candidate.
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

    /// The revision that is rolled out; absent if there is none. `rollout` contains the last
    /// revision that was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,

    /// The weights that every gateway applies.
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

    /// User commands that were handled: annotation to nonce.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 8))]
    pub handled_commands: BTreeMap<String, String>,
}

/// Observed state of one revision.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Name of the revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Version of the revision, for display.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub version: String,
    /// Digest of the model that its pods serve; absent until the first pod has fetched the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// Requested share of the traffic, for display (`5%`, `0.5%`).
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub weight: String,
    /// Requested replicas.
    #[serde(default)]
    pub replicas: i32,
    /// Ready replicas.
    #[serde(default)]
    pub ready_replicas: i32,
}

/// The weights. The backends sum to 100 %; the generation increases with every change.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    /// Increases by one with every change of the backends.
    #[serde(default)]
    pub generation: i64,
    /// Revisions and their shares.
    #[serde(default)]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["revision".into()]))]
    pub backends: Vec<TrafficBackend>,
    /// The revision behind the preview address; only with blue-green.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub preview_revision: Option<String>,
    /// The newest generation that every ready gateway confirmed.
    #[serde(default)]
    pub confirmed_generation: i64,
    /// Time at which the current generation was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_time: Option<Time>,
    /// Share of all requests that the candidate received since the weight was confirmed, for
    /// display (`5.1%`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub observed_candidate_share: Option<String>,
}

/// The traffic share of one revision.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TrafficBackend {
    /// Name of the revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Role of the revision: `Stable`, to which traffic returns on a rollback, or `Candidate`,
    /// which is on trial.
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub role: RevisionRole,
    /// Traffic share of the revision: a percentage with at most one decimal (`5%`).
    #[serde(rename = "weight", with = "permille")]
    #[schemars(with = "String", length(max = 16))]
    pub weight_permille: i32,
}

/// Role of a revision in the traffic split.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum RevisionRole {
    /// The revision to which traffic returns on a rollback.
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
    /// The verdict: `Pass` (a regression worth detecting is excluded), `Fail` (the candidate is
    /// worse), `NeedMoreData`, `NoData` or `ProviderDown`. Only `Pass` advances the rollout, only
    /// `Fail` rolls it back.
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub verdict: GateVerdict,
    /// Numbers behind the verdict, for display: counts, rates, bounds, missing evidence.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Evidence of the candidate: counted successes or events, or the value of a PromQL gate, as
    /// text.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub candidate: String,
    /// The same evidence for stable.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub stable: String,
    /// Consecutive evaluations that passed (positive) or failed (negative); PromQL gates only.
    #[serde(default)]
    pub consecutive: i32,
    /// Time of the reading that `consecutive` counted last, so that no reading is counted twice;
    /// PromQL gates only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_look_time: Option<Time>,
}

/// A verdict. Only `Pass` advances the rollout, only `Fail` rolls it back.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateVerdict {
    /// A regression worth detecting is excluded.
    Pass,
    /// The candidate is worse.
    Fail,
    /// There is evidence, but not enough for a verdict.
    NeedMoreData,
    /// The provider of the evidence responds, but has no usable data.
    NoData,
    /// The provider is unreachable, or its response is not usable.
    ProviderDown,
}
