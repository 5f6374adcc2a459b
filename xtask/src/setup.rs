//! `make setup`: what `make check` and the others need of the machine.

use slipway_provision::packages;

use crate::CommandError;
use crate::checkout::Checkout;
use crate::estimate::DurationEstimates;
use crate::prerequisites::{self, PackageUse};
use crate::step_runner::StepRunner;
use crate::time_budget::TimeBudget;

/// Installs what is missing.
pub(crate) fn run_setup(checkout: &Checkout) -> Result<bool, CommandError> {
    let needed = PackageUse::Cluster;
    let missing = prerequisites::missing_packages(needed);
    missing.iter().for_each(|missing| println!("Missing: {}", missing.description));
    let steps = vec![prerequisites::package_step(&missing)];
    let mut work =
        StepRunner::new(TimeBudget::from_env()?, DurationEstimates::read(&checkout.cache), steps);
    let installed = prerequisites::install_packages(&mut work, needed);
    if !packages::is_in_path("/usr/bin/go") {
        println!("Go is missing, which programs of other projects are built by: see go.dev/dl");
    }
    Ok(installed)
}
