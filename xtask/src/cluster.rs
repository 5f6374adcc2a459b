//! Tier 1: the operator against a real apiserver, and the promises on a real cluster.

use std::process::Command;

use slipway_provision::go_tools;

use crate::checkout::Checkout;
use crate::group::{PromiseGroup, TEST_THREADS};
use crate::prerequisites::{self, PackageUse};
use crate::step_runner::{PlannedStep, StepRunner};

const APISERVER: &str = "operator against a real apiserver";
const UP: &str = "cluster up";
const IMAGES: &str = "build images";
const LOAD: &str = "load images";
const INSTALL: &str = "install the charts";
const DOWN: &str = "cluster down";

/// Whether a context of the user is used instead of a cluster of this checkout.
pub(crate) fn is_foreign() -> bool {
    std::env::var("CONTEXT").is_ok_and(|context| !context.is_empty())
}

/// Names of all Go tools that the promises need.
pub(crate) fn promise_tools() -> Vec<&'static str> {
    go_tools::DEMO.iter().chain(go_tools::PROMISES).copied().collect()
}

/// Names of all Go tools that any tier needs.
pub(crate) fn all_tools() -> Vec<&'static str> {
    go_tools::CHECKS.iter().copied().chain(promise_tools()).collect()
}

/// The steps of the tier up to the groups of promises; images contain programs that are built
/// already.
pub(crate) fn cluster_steps(checkout: &Checkout) -> Vec<PlannedStep> {
    let images = checkout.cache.path("images").is_dir();
    vec![
        PlannedStep::new(APISERVER, 300),
        PlannedStep::new(UP, 15),
        PlannedStep::cold_or_warm(IMAGES, images, 30, 60),
        PlannedStep::new(INSTALL, 15),
    ]
}

/// The last step of the tier.
pub(crate) fn down_step() -> PlannedStep {
    PlannedStep::new(DOWN, 5)
}

/// Runs the operator's tests against a real apiserver; returns whether they passed.
pub(crate) fn test_apiserver(checkout: &Checkout) -> slipway_provision::Result<bool> {
    checkout.ensure_tool("kube-apiserver")?;
    Ok(apiserver_command(checkout).status().is_ok_and(|status| status.success()))
}

fn apiserver_command(checkout: &Checkout) -> Command {
    checkout.cargo_command(&[
        "test",
        "--quiet",
        "--workspace",
        "--test",
        "apiserver",
        "--test",
        "apiserver_many",
        "--",
        "--ignored",
    ])
}

/// Brings up a cluster with Slipway installed; returns whether promises can be tested on it.
pub(crate) fn prepare_cluster(
    checkout: &Checkout,
    work: &mut StepRunner,
    with_apiserver: bool,
) -> bool {
    if with_apiserver {
        work.run_command(APISERVER, &mut apiserver_command(checkout));
    }
    let harness = |arguments: &[&str]| {
        let mut command = Command::new(checkout.built_program("slipway-e2e"));
        command.current_dir(&checkout.root).args(arguments);
        command
    };
    work.run_command(UP, &mut harness(&["up", "--all"]))
        && work.run_command(IMAGES, &mut harness(&["images", "--no-cargo"]))
        && (!is_foreign()
            || work.run_command(LOAD, &mut checkout.command("scripts/load-images", &[])))
        && work.run_command(
            INSTALL,
            &mut harness(&["exec", "--", "target/debug/slipway-demo", "install"]),
        )
}

/// Tests the promises of a group of the cluster, or the named ones.
pub(crate) fn test_promises(
    checkout: &Checkout,
    work: &mut StepRunner,
    group: &PromiseGroup,
    names: &[&str],
) -> bool {
    let threads = std::env::var("TEST_THREADS").ok().filter(|threads| !threads.is_empty());
    let threads = format!("--test-threads={}", threads.as_deref().unwrap_or(TEST_THREADS));
    let mut command = Command::new(checkout.built_program("slipway-e2e"));
    command.current_dir(&checkout.root).args([
        "exec",
        "--",
        "cargo",
        "test",
        "--quiet",
        "--offline",
        "--locked",
        "--workspace",
    ]);
    command.args(["--test", "promises", "--", "--ignored", "--format=pretty", &threads]);
    command.args(names);
    if let Some(moment) = work.time_budget.begin_before() {
        command.env("SLIPWAY_BEGIN_BEFORE", moment.to_string());
    }
    work.run_command(group.name, &mut command)
}

/// Removes the cluster, unless it is to be kept or is foreign.
pub(crate) fn tear_down_cluster(checkout: &Checkout, work: &mut StepRunner) {
    let stays = std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty());
    if stays {
        println!("\nThe cluster is still up; `make down` takes it away.");
    } else if !is_foreign() {
        work.clean_up(DOWN, &mut checkout.command("scripts/down", &[]));
    }
}

/// Implements `make up`.
pub(crate) fn bring_up_cluster(checkout: &Checkout) -> slipway_provision::Result<bool> {
    prerequisites::require_packages(PackageUse::for_cluster(is_foreign()))?;
    run_harness(checkout, &["up", "--all"])
}

/// Implements `make images`.
pub(crate) fn build_images(checkout: &Checkout) -> slipway_provision::Result<bool> {
    prerequisites::require_packages(PackageUse::Images)?;
    run_harness(checkout, &["images"])
}

/// Builds the harness and runs it.
fn run_harness(checkout: &Checkout, arguments: &[&str]) -> slipway_provision::Result<bool> {
    checkout.restore_crates();
    // The harness, and the programs that developers run on a cluster by hand.
    let mut build = vec!["build", "--bins"];
    for package in ["slipway-cluster", "slipway-e2e", "slipway-loadgen"] {
        build.extend(["--package", package]);
    }
    if let Err(error) = checkout.cargo_build(&build) {
        eprintln!("{error}");
        return Ok(false);
    }
    let mut command = Command::new(checkout.built_program("slipway-e2e"));
    Ok(command
        .current_dir(&checkout.root)
        .args(arguments)
        .status()
        .is_ok_and(|status| status.success()))
}
