//! The spec with every default resolved. Later stages do not read the raw spec of the strategy and
//! the analysis.

mod amounts;
mod problems;
mod steps;
mod template;

use kube::ResourceExt;
use slipway_crds::v1alpha1::{
    AutoscalingSpec, GateSpec, HoldPolicy, ModelDeployment, StrategyType,
};
use slipway_objects::revision;
pub use steps::RolloutStep;

/// A ModelDeployment as the plan reads it.
#[derive(Clone, Debug)]
pub struct ValidatedSpec {
    pub name: String,
    pub uid: String,
    pub generation: i64,
    /// Revision that results from the spec.
    pub revision: String,
    /// Version of that revision, for display.
    pub version: String,
    pub replicas: i32,
    /// The autoscaler, if the spec has one.
    pub autoscaling: Option<AutoscalingSpec>,
    pub strategy: StrategyType,
    /// Steps of a rollout, in order. One of them is [`RolloutStep::Weight`] 1000, and no weight
    /// follows it.
    pub steps: Vec<RolloutStep>,
    /// Seconds within which a candidate must become available.
    pub progress_deadline: i64,
    /// Seconds for which pods are kept after their traffic has left.
    pub scale_down_delay: i64,
    /// Seconds for which a rollback stays possible after all traffic has moved.
    pub probation: i64,
    /// Blue-green: seconds behind the preview address after which green is promoted; `None` if a
    /// user must promote.
    pub auto_promotion: Option<i64>,
    /// Gates with their defaults resolved. Empty if nothing is judged.
    pub gates: Vec<GateSpec>,
    /// Seconds between two readings of the evidence.
    pub interval: i32,
    /// Seconds for which a step may hold without a verdict.
    pub max_hold: i64,
    /// What happens after `max_hold`.
    pub on_hold_exceeded: HoldPolicy,
    /// Probability of rolling back a good candidate during the whole rollout.
    pub false_rollback: f64,
    /// Deadline of one request in seconds; no request is in flight for longer.
    pub request_timeout: i64,
    /// Whether a user pauses the rollout.
    pub paused: bool,
    /// Number of old revisions to keep.
    pub history_limit: usize,
    /// Why the spec is invalid; names the field and the remedy. Then nothing is created and no
    /// rollout starts or advances. Traffic does not change, and a rollback is still possible.
    pub problem: Option<String>,
}

/// Resolves a ModelDeployment. Never fails: invalid input becomes [`ValidatedSpec::problem`] and a
/// harmless value.
pub fn validate_spec(object: &ModelDeployment) -> ValidatedSpec {
    let spec = &object.spec;
    let strategy = &spec.strategy;
    let revision = revision::revision_of_spec(spec);
    let resolved = steps::resolve_steps(strategy);
    let problem = problems::find_problem(object).or_else(|| resolved.as_ref().err().cloned());
    let preview = strategy.blue_green.clone().unwrap_or_default();
    ValidatedSpec {
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        version: spec.model.version.clone().unwrap_or_else(|| revision.clone()),
        revision,
        // Replaced by the context of the decision, which also considers the running pods.
        replicas: spec.replicas.unwrap_or(1).max(0),
        autoscaling: spec.autoscaling.clone(),
        strategy: strategy.type_,
        steps: resolved.unwrap_or_else(|_| vec![RolloutStep::Weight(1000)]),
        progress_deadline: i64::from(strategy.progress_deadline_seconds),
        scale_down_delay: i64::from(strategy.scale_down_delay_seconds.max(0)),
        probation: i64::from(strategy.probation_seconds.max(0)),
        auto_promotion: preview
            .auto_promotion_enabled
            .then_some(i64::from(preview.auto_promotion_seconds.max(0))),
        gates: slipway_judge::resolved_gates(&spec.analysis),
        interval: spec.analysis.interval_seconds.max(1),
        max_hold: i64::from(spec.analysis.max_hold_seconds),
        on_hold_exceeded: spec.analysis.on_hold_exceeded,
        false_rollback: spec
            .analysis
            .false_rollback_rate
            .fraction()
            .unwrap_or_default()
            .clamp(0.0001, 1.0),
        request_timeout: i64::from(spec.traffic.timeout_seconds.max(1)),
        paused: spec.paused,
        history_limit: usize::try_from(spec.revision_history_limit).unwrap_or_default(),
        problem,
    }
}

impl ValidatedSpec {
    /// Whether the strategy is blue-green.
    pub fn is_blue_green(&self) -> bool {
        self.strategy == StrategyType::BlueGreen
    }

    /// The step at an index, or the last one if the index is past the end, because a user may
    /// shorten the list during a rollout.
    pub fn step(&self, index: usize) -> RolloutStep {
        self.steps.get(index).or(self.steps.last()).copied().unwrap_or(RolloutStep::Weight(1000))
    }

    /// Index of the step with all traffic.
    pub fn full_weight_index(&self) -> usize {
        self.steps
            .iter()
            .rposition(|step| matches!(step, RolloutStep::Weight(_)))
            .unwrap_or_default()
    }

    /// The weight of the candidate at a step: that of the step, otherwise of the last weight before
    /// it.
    pub fn weight_at(&self, index: usize) -> i32 {
        let reached = self.steps.iter().take(index.saturating_add(1)).rev();
        let weights = reached.filter_map(|step| {
            if let RolloutStep::Weight(weight) = step { Some(*weight) } else { None }
        });
        weights.take(1).sum()
    }

    /// The size that the spec gives the candidate independent of its weight, until the next weight.
    pub fn scale_at(&self, index: usize) -> Option<i32> {
        let reached = self.steps.iter().take(index.saturating_add(1)).rev();
        let since = reached.take_while(|step| !matches!(step, RolloutStep::Weight(_)));
        since
            .filter_map(|step| {
                if let RolloutStep::Scale(replicas) = step { Some(*replicas) } else { None }
            })
            .next()
    }

    /// Probability of a false rollback that all gates together may spend in one window of evidence.
    /// The windows are the weights below 100 % and the probation, if there is one; together they
    /// spend the probability that the user allows.
    pub fn alpha(&self) -> f64 {
        let judged = self
            .steps
            .iter()
            .filter(|step| matches!(step, RolloutStep::Weight(weight) if is_judged(*weight)));
        let windows = judged.count() + usize::from(self.probation > 0);
        self.false_rollback / windows.max(1) as f64
    }
}

/// Whether the judge must pass a step of this weight: at 0 the candidate gets no requests, at 1000
/// stable does not run beside it.
pub fn is_judged(weight: i32) -> bool {
    weight > 0 && weight < 1000
}
