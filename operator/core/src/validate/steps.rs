//! Steps of a rollout.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use slipway_crds::v1alpha1::{BlueGreen, Canary, CanaryStep, Strategy, StrategyType};

/// Weights of a canary whose spec names none, in thousandths.
const DEFAULT_WEIGHTS: [i32; 4] = [50, 250, 500, 1000];

/// One resolved step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Blue-green: green comes up whole and waits behind the preview address.
    Preview,
    /// The candidate gets this share, in thousandths.
    Weight(i32),
    /// Waits so many seconds; nothing: for a person.
    Pause(Option<i64>),
    /// The candidate gets at least so many replicas.
    Scale(i32),
}

/// The steps of a strategy, or what is wrong with them.
pub(super) fn resolve(strategy: &Strategy) -> Result<Vec<Step>, String> {
    let steps = match strategy.type_ {
        StrategyType::Canary => canary(&strategy.canary.clone().unwrap_or_default())?,
        StrategyType::BlueGreen => blue_green(&strategy.blue_green.clone().unwrap_or_default()),
    };
    growing(&steps, strategy.type_)?;
    Ok(steps)
}

fn canary(canary: &Canary) -> Result<Vec<Step>, String> {
    if canary.steps.is_empty() {
        return Ok(DEFAULT_WEIGHTS.map(Step::Weight).to_vec());
    }
    let steps: Result<Vec<Step>, String> = canary.steps.iter().enumerate().map(|(at, step)| one(at, step)).collect();
    steps.map(with_all)
}

fn blue_green(blue_green: &BlueGreen) -> Vec<Step> {
    let switches = blue_green.switch_steps.iter().map(|percent| Step::Weight(percent.saturating_mul(10)));
    with_all([Step::Preview].into_iter().chain(switches).collect())
}

/// Adds the step that takes all traffic when it is missing.
fn with_all(mut steps: Vec<Step>) -> Vec<Step> {
    if !steps.contains(&Step::Weight(1000)) {
        steps.push(Step::Weight(1000));
    }
    steps
}

fn one(at: usize, step: &CanaryStep) -> Result<Step, String> {
    let field = format!("spec.strategy.canary.steps[{at}]");
    match (&step.set_weight, &step.pause, &step.set_canary_scale) {
        (Some(weight), None, None) => permille(weight).map(Step::Weight).ok_or_else(|| {
            format!("{field}.setWeight: must be a percentage from 0 to 100, as an integer (5) or a string with at most one decimal (\"0.5%\")")
        }),
        (None, Some(pause), None) => Ok(Step::Pause(pause.duration_seconds.map(|seconds| i64::from(seconds.max(0))))),
        (None, None, Some(scale)) => Ok(Step::Scale(scale.replicas.max(1))),
        _ => Err(format!("{field}: must have exactly one of setWeight, pause, setCanaryScale")),
    }
}

/// Thousandths of an integer percentage or of a string such as `0.5%`.
fn permille(weight: &IntOrString) -> Option<i32> {
    let permille = match weight {
        IntOrString::Int(percent) => percent.checked_mul(10)?,
        IntOrString::String(text) => {
            let text = text.strip_suffix('%')?;
            let (whole, tenths) = text.split_once('.').unwrap_or((text, "0"));
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty();
            if !digits(whole) || !digits(tenths) || tenths.len() > 1 {
                return None;
            }
            whole.parse::<i32>().ok()?.checked_mul(10)?.checked_add(tenths.parse::<i32>().ok()?)?
        }
    };
    (0..=1000).contains(&permille).then_some(permille)
}

/// A weight that shrinks would take the candidate back by stealth, and one that repeats would be judged twice.
fn growing(steps: &[Step], strategy: StrategyType) -> Result<(), String> {
    let field = match strategy {
        StrategyType::Canary => "spec.strategy.canary.steps",
        StrategyType::BlueGreen => "spec.strategy.blueGreen.switchSteps",
    };
    let mut last = None;
    for step in steps {
        if let Step::Weight(weight) = *step {
            if last.is_some_and(|last| weight <= last) {
                return Err(format!("{field}: weights must grow from step to step, and none may come after 100"));
            }
            last = Some(weight);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<i32> {
        permille(&IntOrString::String(text.to_owned()))
    }

    #[test]
    fn percentages_have_at_most_one_decimal() {
        assert_eq!(
            (parse("0.5%"), parse("5%"), parse("100%"), parse("100.0%")),
            (Some(5), Some(50), Some(1000), Some(1000))
        );
        for wrong in ["", "%", "5", "-1%", "100.1%", "0.55%", ".5%", "5.%", "a%", "1e1%", "+5%", "99999999999%"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(permille(&IntOrString::Int(25)), Some(250));
        assert_eq!(permille(&IntOrString::Int(101)), None);
        assert_eq!(permille(&IntOrString::Int(i32::MAX)), None);
    }

    #[test]
    fn a_last_step_of_100_is_added() {
        let strategy = Strategy {
            type_: StrategyType::BlueGreen,
            blue_green: Some(BlueGreen { switch_steps: vec![10, 50], ..BlueGreen::default() }),
            ..Strategy::default()
        };
        let steps = [Step::Preview, Step::Weight(100), Step::Weight(500), Step::Weight(1000)];
        assert_eq!(resolve(&strategy), Ok(steps.to_vec()));
        assert_eq!(resolve(&Strategy::default()), Ok(DEFAULT_WEIGHTS.map(Step::Weight).to_vec()));
    }

    #[test]
    fn weights_grow() {
        let weight = |percent| CanaryStep { set_weight: Some(IntOrString::Int(percent)), ..CanaryStep::default() };
        for list in [vec![5, 5], vec![50, 25], vec![100, 50]] {
            let steps = list.into_iter().map(weight).collect();
            let strategy = Strategy { canary: Some(Canary { steps }), ..Strategy::default() };
            assert!(resolve(&strategy).is_err());
        }
    }
}
