//! Runs all tiers, one after the other.

use crate::checkout::Checkout;
use crate::estimate::DurationEstimates;
use crate::group::{CLIENTS, GROUPS, GroupDecision, PromiseGroup, RunConditions, SkipPolicy};
use crate::prerequisites::PackageUse;
use crate::step_runner::{PlannedStep, StepRunner};
use crate::time_budget::TimeBudget;
use crate::{CommandError, check, cluster, group, prerequisites, report};

/// The step before the group of the public clients.
const INSTALL_CLIENTS: &str = "install the public clients";
/// Comes before the public clients too: they need a model server that loads further models, which
/// is a feature that the product leaves out. Its tests are its own for the same reason.
const REPOSITORY: &str = "model server with a repository";
/// Of the whole workspace, as everything is built: otherwise crates below would be compiled again
/// with fewer features.
const REPOSITORY_TESTS: [&str; 6] =
    ["test", "--workspace", "--test", "repository", "--features", check::MODEL_REPOSITORY];

/// Implements `make test`.
pub(crate) fn run_tiers(checkout: &Checkout, all: bool) -> Result<bool, CommandError> {
    let clock = TimeBudget::from_env()?;
    let tools = cluster::all_tools();
    let packages = PackageUse::for_cluster(cluster::is_foreign());
    let mut missing = prerequisites::missing_packages(packages);
    let mut steps = vec![prerequisites::package_step(&missing)];
    missing.extend(checkout.missing_prerequisites(true));
    let missing_tools = checkout.missing_tools(&tools);
    let others = missing_tools.iter().map(|missing| missing.seconds).sum();
    missing.extend(missing_tools);
    let groups: Vec<&PromiseGroup> =
        GROUPS.iter().filter(|group| group.promise_count(&checkout.root) > 0).collect();
    steps.extend(check::check_steps(checkout, others));
    steps.extend(cluster::cluster_steps(checkout));
    let (on_cluster, alone): (Vec<&PromiseGroup>, Vec<&PromiseGroup>) =
        groups.iter().partition(|group| group.name != CLIENTS);
    steps.extend(on_cluster.iter().flat_map(|group| group_steps(checkout, group)));
    steps.push(cluster::down_step());
    steps.extend(alone.iter().flat_map(|group| group_steps(checkout, group)));
    let mut work = StepRunner::new(clock, DurationEstimates::read(&checkout.cache), steps);
    report::print_plan("make test", checkout, &missing, &work);

    prerequisites::install_packages(&mut work, packages);
    let beside = checkout.start_tool_build(&tools);
    let ready = check::run_steps(checkout, &mut work, beside)
        && cluster::prepare_cluster(checkout, &mut work, true);
    for group in on_cluster {
        run_or_skip(checkout, &mut work, group, ready, all);
    }
    cluster::tear_down_cluster(checkout, &mut work);
    for group in alone {
        run_or_skip(checkout, &mut work, group, true, all);
    }
    Ok(report::print_outcome(&work))
}

/// Implements `make e2e GROUP=name`.
pub(crate) fn run_group(checkout: &Checkout, group: &PromiseGroup) -> Result<bool, CommandError> {
    if group.name != CLIENTS {
        return run_on_cluster(checkout, group, &[]);
    }
    prerequisites::require_packages(PackageUse::Build)?;
    let mut work = StepRunner::new(
        TimeBudget::from_env()?,
        DurationEstimates::read(&checkout.cache),
        group_steps(checkout, group),
    );
    report::print_plan("the group clients", checkout, &checkout.missing_prerequisites(true), &work);
    checkout.restore_crates();
    match checkout.cargo_build(&[&REPOSITORY_TESTS[..], &["--no-run"]].concat()) {
        Ok(()) => run_group_now(checkout, &mut work, group),
        Err(error) => work.record_failure(group.name, group.promise_count(&checkout.root), &error),
    }
    Ok(report::print_outcome(&work))
}

/// Implements `make e2e T=names`.
pub(crate) fn run_promises(checkout: &Checkout, names: &[&str]) -> Result<bool, CommandError> {
    run_on_cluster(checkout, group::find_group("core")?, names)
}

fn run_on_cluster(
    checkout: &Checkout,
    group: &PromiseGroup,
    names: &[&str],
) -> Result<bool, CommandError> {
    const BUILD: &str = "build programs and promises";
    prerequisites::require_packages(PackageUse::for_cluster(cluster::is_foreign()))?;
    let tools = cluster::promise_tools();
    let missing_tools = checkout.missing_tools(&tools);
    let mut missing = checkout.missing_prerequisites(true);
    let others: u64 = missing_tools.iter().map(|missing| missing.seconds).sum();
    missing.extend(missing_tools);
    let mut steps = vec![PlannedStep::for_state(
        BUILD,
        checkout.build_state(),
        [900 + others / 2, 400 + others / 2, 120 + others],
    )];
    steps.extend(cluster::cluster_steps(checkout));
    steps.extend(group_steps(checkout, group));
    steps.push(cluster::down_step());
    let mut work =
        StepRunner::new(TimeBudget::from_env()?, DurationEstimates::read(&checkout.cache), steps);
    report::print_plan("make e2e", checkout, &missing, &work);
    checkout.restore_crates();
    let beside = checkout.start_tool_build(&tools);
    let built = work.run_function(BUILD, || {
        let built = checkout.cargo_build(&["build", "--workspace", "--bins"]).and_then(|()| {
            checkout.cargo_build(&[
                "test",
                "--workspace",
                "--test",
                "promises",
                "--test",
                "apiserver",
                "--test",
                "apiserver_many",
                "--no-run",
            ])
        });
        built.and(beside.join())
    });
    checkout.save_crates();
    if built && cluster::prepare_cluster(checkout, &mut work, names.is_empty()) {
        cluster::test_promises(checkout, &mut work, group, names);
    } else {
        work.record_failure(
            group.name,
            group.promise_count(&checkout.root),
            "there is no cluster with Slipway on it",
        );
    }
    cluster::tear_down_cluster(checkout, &mut work);
    Ok(report::print_outcome(&work))
}

/// The steps of a group: obtaining its tools, if that is a step of its own, and running it.
fn group_steps(checkout: &Checkout, group: &PromiseGroup) -> Vec<PlannedStep> {
    let mut steps = Vec::new();
    if group.skip_policy == SkipPolicy::MissingTools {
        let present = group.tools_present(&checkout.cache, &checkout.root);
        steps.push(PlannedStep::cold_or_warm(INSTALL_CLIENTS, present, 1, group.cold_seconds));
    }
    if group.name == CLIENTS {
        steps.push(PlannedStep::new(REPOSITORY, 60));
    }
    steps.push(PlannedStep::new(group.name, group.warm_seconds));
    steps
}

/// Runs a group, or counts it as skipped or failed.
fn run_or_skip(
    checkout: &Checkout,
    work: &mut StepRunner,
    group: &PromiseGroup,
    ready: bool,
    all: bool,
) {
    let promises = group.promise_count(&checkout.root);
    let situation = RunConditions {
        tools_present: group.tools_present(&checkout.cache, &checkout.root),
        time_left: work.time_budget.time_left(),
        too_late: work.time_budget.is_too_late() && !all,
        all,
    };
    match group.decide(situation) {
        GroupDecision::Run if !ready => {
            work.record_failure(group.name, promises, "there is no cluster with Slipway on it")
        }
        GroupDecision::Run => run_group_now(checkout, work, group),
        GroupDecision::Skip(reason) => work.record_skip(group.name, promises, &reason),
        GroupDecision::Fail(reason) => work.record_failure(group.name, promises, &reason),
    }
}

fn run_group_now(checkout: &Checkout, work: &mut StepRunner, group: &PromiseGroup) {
    if group.name != CLIENTS {
        cluster::test_promises(checkout, work, group, &[]);
        return;
    }
    let mut folders = Vec::new();
    let installed = work.run_function(INSTALL_CLIENTS, || {
        folders = checkout.client_environments().map_err(|error| error.to_string())?;
        Ok(())
    });
    if !installed {
        return work.record_failure(
            group.name,
            group.promise_count(&checkout.root),
            "the clients could not be installed",
        );
    }
    let library =
        match slipway_provision::libraries::ensure_onnx_runtime(&checkout.cache, &checkout.root) {
            Ok(library) => library,
            Err(error) => {
                return work.record_failure(
                    group.name,
                    group.promise_count(&checkout.root),
                    &error.to_string(),
                );
            }
        };
    let mut tests = checkout.cargo_command(&REPOSITORY_TESTS);
    if !work.run_command(REPOSITORY, tests.arg("--quiet")) {
        return work.record_failure(
            group.name,
            group.promise_count(&checkout.root),
            "the model server that they need does not hold",
        );
    }
    let mut command = checkout.command("serving-runtime/tests/clients/run.sh", &[]);
    work.run_command(
        group.name,
        command.arg(checkout.built_program("slipway-runtime")).arg(library).args(folders),
    );
}
