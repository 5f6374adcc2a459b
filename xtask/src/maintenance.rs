//! Fills and removes the cache.

use slipway_provision::libraries;

use crate::checkout::Checkout;
use crate::estimate::DurationEstimates;
use crate::group::{CLIENTS, find_group};
use crate::prerequisites::PackageUse;
use crate::step_runner::{PlannedStep, StepRunner};
use crate::time_budget::TimeBudget;
use crate::{CommandError, cluster, prerequisites, report};

/// Implements `make prefetch`: obtains all external artifacts, for demo and tests.
pub(crate) fn prefetch_all(checkout: &Checkout) -> Result<bool, CommandError> {
    const LIBRARY: &str = "ONNX Runtime";
    const CRATES: &str = "crates of the registry: lints, tests, programs";
    const DENY: &str = "cargo-deny";
    const PYTHON: &str = "Python packages of the public clients";
    const BASES: &str = "base images";
    const TOOLS: &str = "programs of other projects";
    prerequisites::require_packages(PackageUse::Cluster)?;
    let tools = cluster::all_tools();
    let missing_tools = checkout.missing_tools(&tools);
    let others: u64 = missing_tools.iter().map(|missing| missing.seconds).sum();
    let mut missing = checkout.missing_prerequisites(true);
    missing.extend(missing_tools);
    let clients = find_group(CLIENTS)?;
    let steps = vec![
        PlannedStep::new(LIBRARY, 15),
        PlannedStep::cold_or_warm(DENY, checkout.has_cargo_deny(), 1, 150),
        PlannedStep::for_state(CRATES, checkout.build_state(), [1300, 600, 200]),
        PlannedStep::cold_or_warm(
            PYTHON,
            clients.tools_present(&checkout.cache, &checkout.root),
            1,
            clients.cold_seconds,
        ),
        PlannedStep::cold_or_warm(TOOLS, others == 0, 0, others * 2 / 3),
        PlannedStep::cold_or_warm(BASES, checkout.cache.path("base").is_dir(), 2, 40),
    ];
    let mut work =
        StepRunner::new(TimeBudget::from_env()?, DurationEstimates::read(&checkout.cache), steps);
    report::print_plan("make prefetch", checkout, &missing, &work);
    let text = |error: slipway_provision::ProvisionError| error.to_string();
    let beside = checkout.start_tool_build(&tools);
    work.run_function(LIBRARY, || {
        libraries::ensure_onnx_runtime(&checkout.cache, &checkout.root).map(drop).map_err(text)
    });
    work.run_command(DENY, &mut checkout.command("scripts/deny", &["--only-install"]));
    checkout.restore_crates();
    work.run_function(CRATES, || {
        checkout.cargo_build(&["clippy", "--workspace", "--all-targets"])?;
        checkout.cargo_build(&["test", "--workspace", "--no-run"])?;
        checkout.cargo_build(&["build", "--workspace", "--bins"])
    });
    checkout.save_crates();
    work.run_function(PYTHON, || checkout.client_environments().map(drop).map_err(text));
    work.run_function(TOOLS, || beside.join());
    let mut bases = std::process::Command::new(checkout.built_program("slipway-e2e"));
    work.run_command(
        BASES,
        bases.current_dir(&checkout.root).args(["images", "--no-cargo", "--only-bases"]),
    );
    Ok(report::print_outcome(&work))
}

/// Implements `make clean-cache`.
pub(crate) fn clean_cache(checkout: &Checkout) -> Result<bool, CommandError> {
    checkout.cache.clean()?;
    println!("removed {}", checkout.cache.root().display());
    Ok(true)
}
