//! The messages of a run before its first step and after its last.

use slipway_provision::format_minutes;

use crate::checkout::{Checkout, MissingArtifact};
use crate::step_runner::StepRunner;

/// Prints what is missing, what will be done, and how long all of it takes.
pub(crate) fn print_plan(
    what: &str,
    checkout: &Checkout,
    missing: &[MissingArtifact],
    work: &StepRunner,
) {
    checkout.print_missing(missing);
    println!("\n{what} takes about {}:", format_minutes(work.seconds_left()));
    work.print_steps();
    if let Some(budget) = work.time_budget.budget() {
        println!(
            "Groups whose tools are missing are left out when less than they take is left of {}.",
            format_minutes(budget.as_secs())
        );
    }
}

/// Prints the failures, and the counts as the last line; returns whether there were no failures.
pub(crate) fn print_outcome(work: &StepRunner) -> bool {
    println!("\nafter {}:", format_minutes(work.time_budget.elapsed().as_secs()));
    for failure in &work.failures {
        println!("FAILED {failure}");
    }
    println!("{}", work.counts);
    work.counts.failed == 0
}
