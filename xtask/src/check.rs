//! Tier 0: checks and tests that need no cluster.

use std::path::PathBuf;
use std::process::Command;

use slipway_provision::{ProvisionError, libraries, registry_unit};

use crate::checkout::{BackgroundBuild, Checkout};
use crate::estimate::DurationEstimates;
use crate::prerequisites::PackageUse;
use crate::step_runner::{PlannedStep, StepRunner};
use crate::time_budget::TimeBudget;
use crate::{features, prerequisites, report};

/// Go programs that tests, charts and workflows need.
pub(crate) const TOOLS: [&str; 3] = ["actionlint", "helm", "nats"];

/// The feature that loads further models, which no program of the product has. Lints see it, so
/// that what compiles with it alone is looked at too.
pub(crate) const MODEL_REPOSITORY: &str = "slipway-runtime/model-repository";

const FORMAT: &str = "format";
const DEPENDENCIES: &str = "licences, versions, origins of dependencies";
const FEATURES: &str = "one feature resolution";
const LINTS: &str = "lints";
const BUILD: &str = "build programs and tests";
const EXTERNAL_PROGRAMS: &str = "programs of other projects";
const TESTS: &str = "tests of the workspace";
const CHARTS: &str = "charts";
const WORKFLOWS: &str = "workflows";
const WORKFLOW_DIR: &str = ".github/workflows";

/// The steps of the tier; `others` is the time in seconds to build other projects' programs.
pub(crate) fn check_steps(checkout: &Checkout, others: u64) -> Vec<PlannedStep> {
    let state = checkout.build_state();
    vec![
        PlannedStep::new(FORMAT, 5),
        PlannedStep::cold_or_warm(DEPENDENCIES, checkout.has_cargo_deny(), 5, 150),
        PlannedStep::new(FEATURES, 3),
        PlannedStep::for_state(LINTS, state, [420, 120, 60]),
        PlannedStep::for_state(BUILD, state, [1000, 500, 240]),
        // They are built in parallel with all of the above, which leaves them about a third of the
        // machine.
        PlannedStep::cold_or_warm(EXTERNAL_PROGRAMS, others == 0, 0, others * 2 / 3),
        PlannedStep::new(TESTS, 150),
        PlannedStep::new(CHARTS, 5),
        PlannedStep::new(WORKFLOWS, 1),
    ]
}

/// Runs only this tier.
pub(crate) fn run_check(checkout: &Checkout) -> Result<bool, crate::CommandError> {
    prerequisites::require_packages(PackageUse::Build)?;
    let mut missing = checkout.missing_prerequisites(true);
    missing.extend(checkout.missing_tools(&TOOLS));
    let others = checkout.missing_tools(&TOOLS).iter().map(|missing| missing.seconds).sum();
    let mut work = StepRunner::new(
        TimeBudget::from_env()?,
        DurationEstimates::read(&checkout.cache),
        check_steps(checkout, others),
    );
    report::print_plan("make check", checkout, &missing, &work);
    let beside = checkout.start_tool_build(&TOOLS);
    run_steps(checkout, &mut work, beside);
    Ok(report::print_outcome(&work))
}

/// Runs the steps; returns whether the workspace is built and the other projects' programs are
/// available.
pub(crate) fn run_steps(
    checkout: &Checkout,
    work: &mut StepRunner,
    beside: BackgroundBuild,
) -> bool {
    checkout.restore_crates();
    work.run_command(FORMAT, &mut checkout.command("cargo", &["fmt", "--all", "--check"]));
    work.run_command(DEPENDENCIES, &mut checkout.command("scripts/deny", &[]));
    work.run_function(FEATURES, || features::check_features(checkout));
    work.run_command(
        LINTS,
        &mut checkout.cargo_command(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--features",
            MODEL_REPOSITORY,
            "--",
            "-D",
            "warnings",
        ]),
    );
    let built = work.run_function(BUILD, || build_workspace(checkout));
    checkout.save_crates();
    let others = work.run_function(EXTERNAL_PROGRAMS, || beside.join());
    if built {
        // Everything is built; a compilation at this point means that `build` is incomplete. All
        // test programs run even if one fails, so that all failures are reported at once.
        work.run_command(
            TESTS,
            &mut checkout.cargo_command(&["test", "--quiet", "--workspace", "--no-fail-fast"]),
        );
    } else {
        work.record_failure(TESTS, 1, "the build failed");
    }
    work.run_function(CHARTS, || see_above(test_charts(checkout)));
    work.run_function(WORKFLOWS, || see_above(lint_workflows(checkout)));
    built && others
}

/// Builds tests first: they enable all features, and include most programs.
fn build_workspace(checkout: &Checkout) -> Result<(), String> {
    libraries::ensure_onnx_runtime(&checkout.cache, &checkout.root)
        .map_err(|error| error.to_string())?;
    checkout.cargo_build(&["test", "--workspace", "--no-run"])?;
    checkout.cargo_build(&["build", "--workspace", "--bins"])
}

/// Runs the tests of the charts; returns whether they passed.
pub(crate) fn test_charts(checkout: &Checkout) -> slipway_provision::Result<bool> {
    let helm = checkout.ensure_tool("helm")?;
    let mut command = checkout.command("charts/tests/run.sh", &[]);
    Ok(command.env("HELM", helm).status().is_ok_and(|status| status.success()))
}

/// Checks the workflows with actionlint; returns whether it found no fault. actionlint runs without
/// linters for scripts, which some machines lack.
pub(crate) fn lint_workflows(checkout: &Checkout) -> slipway_provision::Result<bool> {
    let actionlint = checkout.ensure_tool("actionlint")?;
    let dir = checkout.root.join(WORKFLOW_DIR);
    let files: Vec<PathBuf> =
        registry_unit::file_names(&dir).iter().map(|name| dir.join(name)).collect();
    if files.is_empty() {
        return Err(ProvisionError::Other(format!("no workflows are in {}", dir.display())));
    }
    let mut command = Command::new(actionlint);
    command.current_dir(&checkout.root).args(["-no-color", "-shellcheck=", "-pyflakes="]);
    Ok(command.args(files).status().is_ok_and(|status| status.success()))
}

/// The outcome of a check that has printed its findings.
fn see_above(outcome: slipway_provision::Result<bool>) -> Result<(), String> {
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => Err("see above".into()),
        Err(error) => Err(error.to_string()),
    }
}
