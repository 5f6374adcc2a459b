//! How a new revision replaces the stable one. Terms are those of Argo Rollouts where the concepts
//! are the same.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Percentage;

/// Pattern of a weight in a string.
const WEIGHT: &str = r"^(100([.]0)?|[0-9]{1,2}([.][0-9])?)%$";

fn thirty_seconds() -> i32 {
    30
}

fn ten_minutes() -> i32 {
    600
}

fn default_true() -> bool {
    true
}

/// How a new revision replaces the running one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.canary) || self.type == 'Canary'").message("spec.strategy.canary: only allowed when spec.strategy.type is Canary"),
    validation = Rule::new("!has(self.blueGreen) || self.type == 'BlueGreen'").message("spec.strategy.blueGreen: only allowed when spec.strategy.type is BlueGreen")
)]
pub struct RolloutStrategy {
    /// Type of the strategy. Canary (default): the weight grows step by step, and each step is
    /// judged. BlueGreen: the new revision starts with full capacity behind a preview address and
    /// takes the traffic in one or several switches.
    #[serde(default, rename = "type")]
    pub type_: StrategyType,

    /// Settings of a canary; only allowed with type Canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStrategy>,

    /// Settings of blue-green; only allowed with type BlueGreen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreenStrategy>,

    /// How long a new revision may take to become available before it is aborted, in seconds.
    /// Restarts of its pods do not reset this time.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 5, max = 86_400))]
    pub progress_deadline_seconds: i32,

    /// How long the old revision keeps its pods after it no longer receives traffic, in seconds.
    #[serde(default = "thirty_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub scale_down_delay_seconds: i32,

    /// How long a rollback stays possible after all traffic goes to the new revision, in seconds:
    /// the old revision keeps its pods, and an abort or a failing gate sends the traffic back.
    #[serde(default)]
    #[schemars(range(min = 0, max = 604_800))]
    pub probation_seconds: i32,
}

impl Default for RolloutStrategy {
    fn default() -> Self {
        Self {
            type_: StrategyType::default(),
            canary: None,
            blue_green: None,
            progress_deadline_seconds: 600,
            scale_down_delay_seconds: 30,
            probation_seconds: 0,
        }
    }
}

/// Type of a strategy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StrategyType {
    /// The weight grows step by step, and each step is judged.
    #[default]
    Canary,
    /// The new revision starts with full capacity behind a preview address and takes the traffic in
    /// one or several switches.
    BlueGreen,
}

/// Settings of a canary.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    // Integers only: converting a string exceeds the cost budget. The operator checks mixed lists.
    validation = Rule::new("!has(self.steps) || self.steps.filter(s, has(s.setWeight) && type(s.setWeight) == int).map(s, int(s.setWeight)).isSorted()").message("spec.strategy.canary.steps.setWeight: weights must grow from step to step; sort them"),
    validation = Rule::new("!has(self.steps) || self.steps.all(s, !has(s.setWeight) || type(s.setWeight) != int || self.steps.exists_one(t, has(t.setWeight) && type(t.setWeight) == int && int(t.setWeight) == int(s.setWeight)))").message("spec.strategy.canary.steps.setWeight: weights must grow from step to step; this list has one twice")
)]
pub struct CanaryStrategy {
    /// Steps, in order. Weights must grow; a last step of 100 is added if it is missing. Default:
    /// 5, 25, 50, 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub steps: Vec<CanaryStep>,
}

/// One step of a canary: exactly one of its members is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.setWeight) ? 1 : 0) + (has(self.pause) ? 1 : 0) + (has(self.setCanaryScale) ? 1 : 0) == 1").message("spec.strategy.canary.steps: every step has exactly one of setWeight, pause, setCanaryScale")
)]
pub struct CanaryStep {
    /// Share of the traffic that the candidate gets: an integer percentage (`5`) or a string with
    /// at most one decimal (`"0.5%"`). The judge must pass the candidate at this weight before the
    /// next step begins.
    // Bounds of the schema instead of a CEL rule: the API server estimates the cost of a rule on an
    // int-or-string as if the string had 3 MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 100, "pattern" = WEIGHT))]
    pub set_weight: Option<Percentage>,

    /// Waits: for a time, or for a user if `durationSeconds` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<RolloutPause>,

    /// Sizes the candidate independently of its weight, until the next `setWeight`. The candidate
    /// never gets fewer replicas than its weight needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_canary_scale: Option<SetCanaryScale>,
}

/// A pause of the rollout.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPause {
    /// Duration in seconds. If absent, the pause lasts until a user promotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub duration_seconds: Option<i32>,
}

/// Size of the candidate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SetCanaryScale {
    /// Replicas of the candidate.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
}

/// Settings of blue-green.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    // Integers only, as for the steps of a canary.
    validation = Rule::new("!has(self.switchSteps) || self.switchSteps.filter(s, type(s) == int).map(s, int(s)).isSorted()").message("spec.strategy.blueGreen.switchSteps: weights must grow from switch to switch; sort them"),
    validation = Rule::new("!has(self.switchSteps) || self.switchSteps.all(s, type(s) != int || self.switchSteps.exists_one(t, type(t) == int && int(t) == int(s)))").message("spec.strategy.blueGreen.switchSteps: weights must grow from switch to switch; this list has one twice")
)]
pub struct BlueGreenStrategy {
    /// Whether green takes the traffic automatically once it is available (and
    /// `autoPromotionSeconds` have passed). False: a user must promote.
    #[serde(default = "default_true")]
    pub auto_promotion_enabled: bool,

    /// How long green stays behind the preview address at least, once it is fully available, in
    /// seconds.
    #[serde(default)]
    #[schemars(range(min = 0, max = 604_800))]
    pub auto_promotion_seconds: i32,

    /// Weights of green at each switch, growing: integer percentages (`10`) or strings with at
    /// most one decimal (`"0.5%"`). A last switch of 100 is added if it is missing. Default: 100.
    /// The judge must pass each switch below 100 before the next one. With the single switch of
    /// 100 green never runs beside blue, so gates that compare both have nothing to judge; with
    /// `[10, 100]` they do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("items" = { "x-kubernetes-int-or-string": true, "minimum": 1, "maximum": 100, "pattern": WEIGHT }))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub switch_steps: Vec<Percentage>,
}

impl Default for BlueGreenStrategy {
    fn default() -> Self {
        Self { auto_promotion_enabled: true, auto_promotion_seconds: 0, switch_steps: Vec::new() }
    }
}
