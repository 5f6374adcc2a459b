//! A rollout in the status: how it stands, its steps, and how it ended.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::permille;

/// Progress of one rollout, or how it was taken back: the only memory that cannot be observed. When
/// it is lost the candidate starts again at its first step.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The revision that is rolled out.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Version for people.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub version: String,
    /// What the rollout does: `Scaling` (pods come up), `Confirming` (gateways take the weight),
    /// `Analyzing` (evidence is collected), `Paused`, `Preview` (green is up behind its address),
    /// `Probation` (all traffic is at the candidate, rollback is armed) or `Aborted`.
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub stage: RolloutStage,
    /// Index of the current step in the resolved list of steps, from 0.
    #[serde(default)]
    pub step_index: i32,
    /// Steps, for people: `2/4`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub step: String,
    /// Start of the rollout.
    pub start_time: Time,
    /// Start of the current stage of the current step.
    pub stage_start_time: Time,
    /// Steps that were reached so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub steps: Vec<StepRecord>,
    /// Why the candidate was taken back; only in stage Aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortStatus>,
    /// The rest of the steps and gates are skipped by a person's `promote-full`.
    #[serde(default)]
    pub promote_full: bool,
    /// Who holds the rollout by the command `pause`; absent when nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub paused_by: Option<String>,
    /// Commands of people that took effect, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub commands: Vec<CommandRecord>,
}

/// A command of a person that took effect.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CommandRecord {
    /// The command: `promote`, `promote-full`, `abort`, `retry`, `pause` or `resume`.
    #[schemars(length(min = 1, max = 32))]
    pub command: String,
    /// Who gave it; `unknown` when the annotation did not say.
    #[schemars(length(max = 256))]
    pub user: String,
    /// The step at which it took effect, for people (`2/4`).
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub step: String,
    /// When it took effect.
    pub time: Time,
}

/// What a rollout does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutStage {
    /// The candidate's pods come up for the weight of the step.
    Scaling,
    /// The weight was written and is not confirmed by every gateway yet.
    Confirming,
    /// The judge collects evidence at the confirmed weight.
    Analyzing,
    /// A pause step, or a person's decision is awaited.
    Paused,
    /// Blue-green: green is up and behind the preview address.
    Preview,
    /// All traffic is at the candidate; the old revision is whole and rollback is armed.
    Probation,
    /// The candidate was taken back.
    Aborted,
}

/// Why a candidate was taken back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AbortStatus {
    /// CamelCase reason, one of the condition reasons.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// For people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When the decision was taken.
    pub time: Time,
    /// Since when no gateway sends anything to the candidate, as confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_left_time: Option<Time>,
}

/// A step that was reached.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Weight asked for (`5%`).
    #[serde(rename = "weight", with = "permille")]
    #[schemars(with = "String", length(max = 16))]
    pub weight_permille: i32,
    /// When it was written.
    pub set_time: Time,
    /// When every gateway had confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_time: Option<Time>,
    /// When the step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Share of requests that the candidate got in this step, as counted by the gateways (`5.1%`).
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "observedWeight",
        with = "permille::option"
    )]
    #[schemars(with = "Option<String>", length(max = 16))]
    pub observed_permille: Option<i32>,
    /// Verdict at the end, with its numbers, for people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub verdict: String,
}

/// A rollout that ended.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRecord {
    /// The revision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Version for people.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub version: String,
    /// How it ended: `Promoted`, `RolledBack` (by a gate, the brake or a deadline), `Aborted` (by
    /// a person) or `Superseded` (by another spec).
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub outcome: RolloutOutcome,
    /// CamelCase reason.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// For people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Start.
    pub start_time: Time,
    /// End.
    pub end_time: Time,
    /// Steps that were reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub steps: Vec<StepRecord>,
    /// Commands of people that took effect, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub commands: Vec<CommandRecord>,
}

/// How a rollout ended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutOutcome {
    /// The candidate became stable.
    Promoted,
    /// The candidate was taken back by a gate, the brake or a deadline.
    RolledBack,
    /// A person took it back.
    Aborted,
    /// Another revision took its place, or the spec went back to stable.
    Superseded,
}
