//! What a run says before its first step and after its last.

use slipway_provision::minutes;

use crate::checkout::{Checkout, Missing};
use crate::work::Work;

/// Says what is missing, what will be done, and how long all of it takes.
pub(crate) fn begin(what: &str, checkout: &Checkout, missing: &[Missing], work: &Work) {
    checkout.announce_missing(missing);
    println!("\n{what} takes about {}:", minutes(work.seconds()));
    work.announce();
    if let Some(budget) = work.clock.budget() {
        println!(
            "Groups whose tools are missing are left out when less than they take is left of {}.",
            minutes(budget.as_secs())
        );
    }
}

/// Prints what failed, and the counts as the last line; returns whether nothing failed.
pub(crate) fn end(work: &Work) -> bool {
    println!("\nafter {}:", minutes(work.clock.elapsed().as_secs()));
    for failure in &work.failures {
        println!("FAILED {failure}");
    }
    println!("{}", work.tally);
    work.tally.failed == 0
}
