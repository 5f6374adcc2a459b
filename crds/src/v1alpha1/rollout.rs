//! A rollout in the status: its progress, its steps, and how it ended.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::permille;

/// Progress of one rollout, or how it was rolled back. This is the only state that the operator
/// cannot observe in the cluster. If it is lost, the candidate starts again at its first step.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The revision that is rolled out.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Version of the revision, for display.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub version: String,
    /// What the rollout does: `Scaling` (pods start), `Confirming` (gateways apply the weight),
    /// `Analyzing` (evidence is collected), `Paused`, `Preview` (green is available behind the
    /// preview address), `Probation` (all traffic goes to the candidate, a rollback is still
    /// possible) or `Aborted`.
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub stage: RolloutStage,
    /// Index of the current step in the resolved list of steps, from 0.
    #[serde(default)]
    pub step_index: i32,
    /// Current step and number of steps, for display: `2/4`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub step: String,
    /// Start time of the rollout.
    pub start_time: Time,
    /// Start time of the current stage of the current step.
    pub stage_start_time: Time,
    /// Steps reached so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub steps: Vec<StepRecord>,
    /// Why the candidate was rolled back; only in stage Aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortStatus>,
    /// A user's `promote-full` skips the remaining steps and gates.
    #[serde(default)]
    pub promote_full: bool,
    /// The user who paused the rollout by the command `pause`; absent if it is not paused so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub paused_by: Option<String>,
    /// User commands that took effect, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub commands: Vec<CommandRecord>,
}

/// A user command that took effect.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CommandRecord {
    /// The command: `promote`, `promote-full`, `abort`, `retry`, `pause` or `resume`.
    #[schemars(length(min = 1, max = 32))]
    pub command: String,
    /// The user who gave the command; `unknown` if the annotation names none.
    #[schemars(length(max = 256))]
    pub user: String,
    /// The step at which the command took effect, for display (`2/4`).
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub step: String,
    /// Time at which the command took effect.
    pub time: Time,
}

/// What a rollout does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutStage {
    /// The candidate's pods start for the weight of the step.
    Scaling,
    /// The weight was written, and not every gateway has confirmed it yet.
    Confirming,
    /// The judge collects evidence at the confirmed weight.
    Analyzing,
    /// A pause step is active, or the rollout waits for a user's decision.
    Paused,
    /// Blue-green: green is available behind the preview address.
    Preview,
    /// All traffic goes to the candidate. The old revision keeps its pods, so that a rollback is
    /// immediate.
    Probation,
    /// The candidate was rolled back.
    Aborted,
}

/// Why a candidate was rolled back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AbortStatus {
    /// Reason in CamelCase, one of the condition reasons.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Explanation for users.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Time of the decision.
    pub time: Time,
    /// Time since which no gateway sends requests to the candidate, as confirmed by the gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_left_time: Option<Time>,
}

/// A step that was reached.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Requested weight (`5%`).
    #[serde(rename = "weight", with = "permille")]
    #[schemars(with = "String", length(max = 16))]
    pub weight_permille: i32,
    /// Time at which the weight was written.
    pub set_time: Time,
    /// Time at which every gateway had confirmed the weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_time: Option<Time>,
    /// Time at which the step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Share of requests that the candidate received in this step, as counted by the gateways
    /// (`5.1%`).
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "observedWeight",
        with = "permille::option"
    )]
    #[schemars(with = "Option<String>", length(max = 16))]
    pub observed_permille: Option<i32>,
    /// Verdict at the end of the step, with its numbers, for display.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub verdict: String,
}

/// A rollout that ended.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRecord {
    /// The revision that was rolled out.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Version of the revision, for display.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub version: String,
    /// How the rollout ended: `Promoted`, `RolledBack` (by a gate, the brake or a deadline),
    /// `Aborted` (by a user) or `Superseded` (by another spec).
    #[schemars(with = "String", length(min = 1, max = 32))]
    pub outcome: RolloutOutcome,
    /// Reason in CamelCase.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Explanation for users.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Start time of the rollout.
    pub start_time: Time,
    /// End time of the rollout.
    pub end_time: Time,
    /// Steps that were reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub steps: Vec<StepRecord>,
    /// User commands that took effect, oldest first.
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
    /// A gate, the brake or a deadline rolled the candidate back.
    RolledBack,
    /// A user rolled the candidate back.
    Aborted,
    /// Another revision replaced the candidate, or the spec returned to the stable revision.
    Superseded,
}
