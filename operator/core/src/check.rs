//! Checks the invariants of a plan against the observed state. Tests and the simulator call it for
//! every plan. It shares no decisions with the plan that it checks, only arithmetic. The numbers of
//! invariants are those of the crate's documentation.

mod children;
mod restart;
mod sizes;
mod steps;
mod writes;

use jiff::Timestamp;
use slipway_crds::v1alpha1::{ModelDeploymentStatus, RevisionRole, RolloutStage};

use crate::action::ReconcilePlan;
use crate::observed::ObservedState;
use crate::traffic;
use crate::validate::{ValidatedSpec, validate_spec};

/// Returns the violations of a plan; empty if there are none.
pub fn check_plan(observed: &ObservedState, plan: &ReconcilePlan, now: Timestamp) -> Vec<String> {
    if observed.object.metadata.deletion_timestamp.is_some() {
        let idle = plan.actions.is_empty() && plan.events.is_empty();
        return if idle {
            Vec::new()
        } else {
            vec!["an object that is being deleted is acted on".to_owned()]
        };
    }
    let case = CheckedPlan {
        observed,
        plan,
        now,
        spec: validate_spec(&observed.object),
        old: observed.object.status.clone().unwrap_or_default(),
        new: &plan.status,
    };
    let mut broken = Vec::new();
    check_weights(&case, &mut broken);
    check_generations(&case, &mut broken);
    children::check_children(&case, &mut broken);
    restart::check_restart(&case, &mut broken);
    sizes::check_sizes(&case, &mut broken);
    steps::check_steps(&case, &mut broken);
    writes::check_writes(&case, &mut broken);
    broken
}

/// One observed state and its plan.
struct CheckedPlan<'a> {
    observed: &'a ObservedState,
    plan: &'a ReconcilePlan,
    now: Timestamp,
    spec: ValidatedSpec,
    old: ModelDeploymentStatus,
    new: &'a ModelDeploymentStatus,
}

impl CheckedPlan<'_> {
    /// The weight of a revision in a status, in thousandths.
    fn weight(status: &ModelDeploymentStatus, revision: &str) -> i32 {
        status.traffic.as_ref().map_or(0, |it| traffic::weight_of(it, revision))
    }

    /// Whether the plan writes weights that differ from the stored ones.
    fn weights_change(&self) -> bool {
        let facts = |status: &ModelDeploymentStatus| {
            status.traffic.clone().map(|it| (it.generation, it.backends, it.preview_revision))
        };
        facts(&self.old) != facts(self.new)
    }
}

/// Adds a violation unless `holds`.
fn report_unless(broken: &mut Vec<String>, holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        broken.push(what());
    }
}

/// I1 and I7.
fn check_weights(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let Some(written) = &case.new.traffic else {
        report_unless(broken, case.spec.problem.is_some(), || {
            "I1: no weights are written".to_owned()
        });
        return;
    };
    let sum: i32 = written.backends.iter().map(|backend| backend.weight_permille).sum();
    report_unless(broken, sum == 1000, || format!("I1: weights sum to {sum}"));
    let inside =
        written.backends.iter().all(|backend| (0..=1000).contains(&backend.weight_permille));
    report_unless(broken, inside, || "I1: a weight is out of range".to_owned());
    let stable: Vec<&str> = written
        .backends
        .iter()
        .filter(|it| it.role == RevisionRole::Stable)
        .map(|it| it.revision.as_str())
        .collect();
    report_unless(broken, stable.len() == 1, || format!("I1: {} stable backends", stable.len()));
    if let Some(stored_stable) = &case.new.stable {
        report_unless(broken, stable == [stored_stable.revision.as_str()], || {
            "I1: the stable backend is not the stable revision".to_owned()
        });
    }
    let rollout = case.new.rollout.as_ref();
    let candidates = written.backends.iter().filter(|it| it.role == RevisionRole::Candidate);
    for backend in candidates {
        let active = rollout
            .filter(|it| it.revision == backend.revision && it.stage != RolloutStage::Aborted);
        report_unless(broken, active.is_some(), || {
            format!("I7: {} has a weight without a rollout", backend.revision)
        });
    }
}

/// I2.
fn check_generations(case: &CheckedPlan<'_>, broken: &mut Vec<String>) {
    let (old, new) = (
        case.old.traffic.clone().unwrap_or_default(),
        case.new.traffic.clone().unwrap_or_default(),
    );
    if case.weights_change() && !new.backends.is_empty() {
        let reported = traffic::newest_report(&case.observed.gateway);
        report_unless(broken, new.generation > old.generation && new.generation > reported, || {
            format!(
                "I2: new weights at generation {} after {} (reported: {reported})",
                new.generation, old.generation
            )
        });
        report_unless(broken, new.confirmed_time.is_none(), || {
            "I2: new weights count as confirmed".to_owned()
        });
    }
    report_unless(broken, new.confirmed_generation <= new.generation, || {
        "I2: more is confirmed than was written".to_owned()
    });
    let newly = traffic::is_confirmed(&new)
        && !(traffic::is_confirmed(&old) && old.generation == new.generation);
    report_unless(
        broken,
        !newly || traffic::all_ready_at(&case.observed.gateway, new.generation),
        || "I2: weights count as confirmed that not every ready gateway applied".to_owned(),
    );
}
