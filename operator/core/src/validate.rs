//! The spec with every default resolved. Nothing after this reads the raw spec of a strategy or of
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
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Revision that the spec asks for.
    pub revision: String,
    /// Version of that revision, for people.
    pub version: String,
    /// Replicas of the stable revision.
    pub replicas: i32,
    /// The autoscaler, if one is asked for.
    pub autoscaling: Option<AutoscalingSpec>,
    /// Kind of strategy.
    pub strategy: StrategyType,
    /// Steps of a rollout, in order; one of them is [`RolloutStep::Weight`] 1000, and no weight
    /// comes after it.
    pub steps: Vec<RolloutStep>,
    /// Seconds that a candidate may take to become available.
    pub progress_deadline: i64,
    /// Seconds that pods outlive their traffic.
    pub scale_down_delay: i64,
    /// Seconds during which rollback stays armed after all traffic moved.
    pub probation: i64,
    /// Blue-green: seconds behind the preview address after which green is promoted; nothing: a
    /// person promotes.
    pub auto_promotion: Option<i64>,
    /// Gates, defaults resolved. Empty: no judge.
    pub gates: Vec<GateSpec>,
    /// Seconds between two readings of the evidence.
    pub interval: i32,
    /// Seconds that a step may hold without a verdict.
    pub max_hold: i64,
    /// What happens then.
    pub on_hold_exceeded: HoldPolicy,
    /// Chance of taking back a good candidate over the whole rollout.
    pub false_rollback: f64,
    /// Deadline of one request in seconds: nothing is in flight for longer.
    pub request_timeout: i64,
    /// A person holds the rollout.
    pub paused: bool,
    /// Old revisions that are kept.
    pub history_limit: usize,
    /// Why the spec cannot be acted on; names the field and the remedy. Then nothing is created,
    /// no rollout starts or advances; traffic stays and whatever takes a candidate back still
    /// works.
    pub problem: Option<String>,
}

/// Resolves a ModelDeployment. Total: what cannot be understood becomes [`ValidatedSpec::problem`]
/// and a harmless value.
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
        // Made a number by the context of the decision, which sees what runs.
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

    /// The step at an index; past the end the last one, because a person may shorten the list in
    /// the middle of a rollout.
    pub fn step(&self, index: usize) -> RolloutStep {
        self.steps.get(index).or(self.steps.last()).copied().unwrap_or(RolloutStep::Weight(1000))
    }

    /// Index of the step that takes all traffic.
    pub fn full_weight_index(&self) -> usize {
        self.steps
            .iter()
            .rposition(|step| matches!(step, RolloutStep::Weight(_)))
            .unwrap_or_default()
    }

    /// The weight that the candidate has at a step: that of the step, else of the last weight
    /// before it.
    pub fn weight_at(&self, index: usize) -> i32 {
        let reached = self.steps.iter().take(index.saturating_add(1)).rev();
        let weights = reached.filter_map(|step| {
            if let RolloutStep::Weight(weight) = step { Some(*weight) } else { None }
        });
        weights.take(1).sum()
    }

    /// The size that a person gave the candidate apart from its weight, until the next weight.
    pub fn scale_at(&self, index: usize) -> Option<i32> {
        let reached = self.steps.iter().take(index.saturating_add(1)).rev();
        let since = reached.take_while(|step| !matches!(step, RolloutStep::Weight(_)));
        since
            .filter_map(|step| {
                if let RolloutStep::Scale(replicas) = step { Some(*replicas) } else { None }
            })
            .next()
    }

    /// Chance of a false rollback that all gates together may spend in one window of evidence. The
    /// windows are the weights below 100 % and, when there is one, the probation; together they
    /// spend what the user allowed.
    pub fn alpha(&self) -> f64 {
        let judged = self
            .steps
            .iter()
            .filter(|step| matches!(step, RolloutStep::Weight(weight) if is_judged(*weight)));
        let windows = judged.count() + usize::from(self.probation > 0);
        self.false_rollback / windows.max(1) as f64
    }
}

/// Whether the judge must pass a step of this weight: at 0 the candidate gets nothing, at 1000
/// there is no concurrent stable.
pub fn is_judged(weight: i32) -> bool {
    weight > 0 && weight < 1000
}
