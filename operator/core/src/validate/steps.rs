//! Steps of a rollout.

use slipway_crds::v1alpha1::{
    BlueGreenStrategy, CanaryStep, CanaryStrategy, Percentage, RolloutStrategy, StrategyType,
};

/// Weights of a canary without steps in its spec, in thousandths.
const DEFAULT_WEIGHTS: [i32; 4] = [50, 250, 500, 1000];

/// One resolved step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutStep {
    /// Blue-green: green starts with full capacity and waits behind the preview address.
    Preview,
    /// The weight of the candidate, in thousandths.
    Weight(i32),
    /// Waits this number of seconds; `None` waits for a user.
    Pause(Option<i64>),
    /// The minimum number of replicas of the candidate.
    Scale(i32),
}

/// The steps of a strategy, or the error in them.
pub(super) fn resolve_steps(strategy: &RolloutStrategy) -> Result<Vec<RolloutStep>, String> {
    let steps = match strategy.type_ {
        StrategyType::Canary => canary_steps(&strategy.canary.clone().unwrap_or_default())?,
        StrategyType::BlueGreen => {
            blue_green_steps(&strategy.blue_green.clone().unwrap_or_default())?
        }
    };
    check_increasing(&steps, strategy.type_)?;
    Ok(steps)
}

fn canary_steps(canary: &CanaryStrategy) -> Result<Vec<RolloutStep>, String> {
    if canary.steps.is_empty() {
        return Ok(DEFAULT_WEIGHTS.map(RolloutStep::Weight).to_vec());
    }
    let steps: Result<Vec<RolloutStep>, String> =
        canary.steps.iter().enumerate().map(|(at, step)| parse_step(at, step)).collect();
    steps.map(ensure_full_step)
}

fn blue_green_steps(blue_green: &BlueGreenStrategy) -> Result<Vec<RolloutStep>, String> {
    let switches = blue_green.switch_steps.iter().enumerate().map(|(at, share)| {
        weight_step(share)
            .ok_or_else(|| format!("spec.strategy.blueGreen.switchSteps[{at}]: {WEIGHT}"))
    });
    [Ok(RolloutStep::Preview)]
        .into_iter()
        .chain(switches)
        .collect::<Result<_, _>>()
        .map(ensure_full_step)
}

const WEIGHT: &str = "must be a percentage from 0 to 100, as an integer (5) or a string with at most one decimal (\"0.5%\")";

fn weight_step(share: &Percentage) -> Option<RolloutStep> {
    share.permille().map(RolloutStep::Weight)
}

/// Adds the step with all traffic if it is missing.
fn ensure_full_step(mut steps: Vec<RolloutStep>) -> Vec<RolloutStep> {
    if !steps.contains(&RolloutStep::Weight(1000)) {
        steps.push(RolloutStep::Weight(1000));
    }
    steps
}

fn parse_step(at: usize, step: &CanaryStep) -> Result<RolloutStep, String> {
    let field = format!("spec.strategy.canary.steps[{at}]");
    match (&step.set_weight, &step.pause, &step.set_canary_scale) {
        (Some(share), None, None) => {
            weight_step(share).ok_or_else(|| format!("{field}.setWeight: {WEIGHT}"))
        }
        (None, Some(pause), None) => {
            Ok(RolloutStep::Pause(pause.duration_seconds.map(|seconds| i64::from(seconds.max(0)))))
        }
        (None, None, Some(scale)) => Ok(RolloutStep::Scale(scale.replicas.max(1))),
        _ => Err(format!("{field}: must have exactly one of setWeight, pause, setCanaryScale")),
    }
}

/// Checks that weights increase: a smaller weight would be a hidden rollback, and a repeated one
/// would be judged twice.
fn check_increasing(steps: &[RolloutStep], strategy: StrategyType) -> Result<(), String> {
    let field = match strategy {
        StrategyType::Canary => "spec.strategy.canary.steps",
        StrategyType::BlueGreen => "spec.strategy.blueGreen.switchSteps",
    };
    let mut last = None;
    for step in steps {
        if let RolloutStep::Weight(weight) = *step {
            if last.is_some_and(|last| weight <= last) {
                return Err(format!(
                    "{field}: weights must grow from step to step, and none may come after 100"
                ));
            }
            last = Some(weight);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_step_of_100_is_added() {
        let strategy = RolloutStrategy {
            type_: StrategyType::BlueGreen,
            blue_green: Some(BlueGreenStrategy {
                switch_steps: vec![10.into(), 50.into()],
                ..BlueGreenStrategy::default()
            }),
            ..RolloutStrategy::default()
        };
        let steps = [
            RolloutStep::Preview,
            RolloutStep::Weight(100),
            RolloutStep::Weight(500),
            RolloutStep::Weight(1000),
        ];
        assert_eq!(resolve_steps(&strategy), Ok(steps.to_vec()));
        assert_eq!(
            resolve_steps(&RolloutStrategy::default()),
            Ok(DEFAULT_WEIGHTS.map(RolloutStep::Weight).to_vec())
        );
    }

    #[test]
    fn weights_grow() {
        let weight =
            |percent: i32| CanaryStep { set_weight: Some(percent.into()), ..CanaryStep::default() };
        for list in [vec![5, 5], vec![50, 25], vec![100, 50]] {
            let steps = list.into_iter().map(weight).collect();
            let strategy = RolloutStrategy {
                canary: Some(CanaryStrategy { steps }),
                ..RolloutStrategy::default()
            };
            assert!(resolve_steps(&strategy).is_err());
        }
    }
}
