//! The invariants, as a checker over what was seen and what was decided. Tests and the simulator call it for every plan; it shares no decision with the plan
//! that it checks, only arithmetic. Numbers are those of the crate's documentation.

mod children;
mod restart;
mod sizes;
mod steps;
mod writing;

use jiff::Timestamp;
use slipway_crds::v1alpha1::{ModelDeploymentStatus, Role, Stage};

use crate::action::Plan;
use crate::observed::Observed;
use crate::traffic;
use crate::validate::{Validated, validate};

/// What a plan breaks; empty when all is well.
pub fn check(observed: &Observed, plan: &Plan, now: Timestamp) -> Vec<String> {
    if observed.object.metadata.deletion_timestamp.is_some() {
        let idle = plan.actions.is_empty() && plan.events.is_empty();
        return if idle { Vec::new() } else { vec!["an object that is being deleted is acted on".to_owned()] };
    }
    let case = Case {
        observed,
        plan,
        now,
        spec: validate(&observed.object),
        old: observed.object.status.clone().unwrap_or_default(),
        new: &plan.status,
    };
    let mut broken = Vec::new();
    weights(&case, &mut broken);
    generations(&case, &mut broken);
    children::check(&case, &mut broken);
    restart::check(&case, &mut broken);
    sizes::check(&case, &mut broken);
    steps::check(&case, &mut broken);
    writing::check(&case, &mut broken);
    broken
}

/// One situation and its plan.
struct Case<'a> {
    observed: &'a Observed,
    plan: &'a Plan,
    now: Timestamp,
    spec: Validated,
    old: ModelDeploymentStatus,
    new: &'a ModelDeploymentStatus,
}

impl Case<'_> {
    /// The share of a revision in a status.
    fn weight(status: &ModelDeploymentStatus, revision: &str) -> i32 {
        status.traffic.as_ref().map_or(0, |it| traffic::weight_of(it, revision))
    }

    /// Whether the plan writes other weights than those that are stored.
    fn weights_change(&self) -> bool {
        let facts = |status: &ModelDeploymentStatus| {
            status.traffic.clone().map(|it| (it.generation, it.backends, it.preview_revision))
        };
        facts(&self.old) != facts(self.new)
    }
}

/// Adds a violation unless `holds`.
fn require(broken: &mut Vec<String>, holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        broken.push(what());
    }
}

/// I1 and I7.
fn weights(case: &Case<'_>, broken: &mut Vec<String>) {
    let Some(written) = &case.new.traffic else {
        require(broken, case.spec.problem.is_some(), || "I1: no weights are written".to_owned());
        return;
    };
    let sum: i32 = written.backends.iter().map(|backend| backend.weight_permille).sum();
    require(broken, sum == 1000, || format!("I1: weights sum to {sum}"));
    let inside = written.backends.iter().all(|backend| (0..=1000).contains(&backend.weight_permille));
    require(broken, inside, || "I1: a weight is out of range".to_owned());
    let stable: Vec<&str> =
        written.backends.iter().filter(|it| it.role == Role::Stable).map(|it| it.revision.as_str()).collect();
    require(broken, stable.len() == 1, || format!("I1: {} stable backends", stable.len()));
    if let Some(told) = &case.new.stable {
        require(broken, stable == [told.revision.as_str()], || {
            "I1: the stable backend is not the stable revision".to_owned()
        });
    }
    let rollout = case.new.rollout.as_ref();
    let candidates = written.backends.iter().filter(|it| it.role == Role::Candidate);
    for backend in candidates {
        let active = rollout.filter(|it| it.revision == backend.revision && it.stage != Stage::Aborted);
        require(broken, active.is_some(), || format!("I7: {} has a weight without a rollout", backend.revision));
    }
}

/// I2.
fn generations(case: &Case<'_>, broken: &mut Vec<String>) {
    let (old, new) = (case.old.traffic.clone().unwrap_or_default(), case.new.traffic.clone().unwrap_or_default());
    if case.weights_change() && !new.backends.is_empty() {
        let reported = traffic::newest_report(&case.observed.gateway);
        require(broken, new.generation > old.generation && new.generation > reported, || {
            format!("I2: new weights at generation {} after {} (reported: {reported})", new.generation, old.generation)
        });
        require(broken, new.confirmed_time.is_none(), || "I2: new weights count as confirmed".to_owned());
    }
    require(broken, new.confirmed_generation <= new.generation, || "I2: more is confirmed than was written".to_owned());
    let newly = traffic::is_confirmed(&new) && !(traffic::is_confirmed(&old) && old.generation == new.generation);
    require(broken, !newly || traffic::all_ready_at(&case.observed.gateway, new.generation), || {
        "I2: weights count as confirmed that not every ready gateway applied".to_owned()
    });
}
