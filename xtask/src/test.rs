//! All tiers, one after the other.

use crate::checkout::Checkout;
use crate::clock::Clock;
use crate::estimate::Estimates;
use crate::group::{CLIENTS, Decision, GROUPS, Group, LeaveOut, Situation};
use crate::work::{Step, Work};
use crate::{Failure, check, cluster, group, report};

/// Comes before the group of the public clients.
const INSTALL_CLIENTS: &str = "install the public clients";

/// `make test`.
pub(crate) fn run(checkout: &Checkout, all: bool) -> Result<bool, Failure> {
    let clock = Clock::from_env()?;
    let tools = cluster::tools();
    let mut missing = checkout.missing_rest(true);
    let missing_tools = checkout.missing_tools(&tools);
    let others = missing_tools.iter().map(|missing| missing.seconds).sum();
    missing.extend(missing_tools);
    let groups: Vec<&Group> = GROUPS.iter().filter(|group| group.promises(&checkout.root) > 0).collect();
    let mut steps = check::steps(checkout, others);
    steps.extend(cluster::steps(checkout));
    let (on_cluster, alone): (Vec<&Group>, Vec<&Group>) = groups.iter().partition(|group| group.name != CLIENTS);
    steps.extend(on_cluster.iter().flat_map(|group| group_steps(checkout, group)));
    steps.push(cluster::last_step());
    steps.extend(alone.iter().flat_map(|group| group_steps(checkout, group)));
    let mut work = Work::new(clock, Estimates::read(&checkout.cache), steps);
    report::begin("make test", checkout, &missing, &work);

    let beside = checkout.build_tools(&tools);
    let ready = check::run_steps(checkout, &mut work, beside) && cluster::prepare(checkout, &mut work, true);
    for group in on_cluster {
        run_or_leave_out(checkout, &mut work, group, ready, all);
    }
    cluster::finish(checkout, &mut work);
    for group in alone {
        run_or_leave_out(checkout, &mut work, group, true, all);
    }
    Ok(report::end(&work))
}

/// `make e2e GROUP=name`.
pub(crate) fn run_group(checkout: &Checkout, group: &Group) -> Result<bool, Failure> {
    if group.name != CLIENTS {
        return on_cluster(checkout, group, &[]);
    }
    let mut work = Work::new(Clock::from_env()?, Estimates::read(&checkout.cache), group_steps(checkout, group));
    report::begin("the group clients", checkout, &checkout.missing_rest(true), &work);
    checkout.restore_crates();
    match checkout.build(&["build", "--package", "slipway-runtime", "--bins"]) {
        Ok(()) => run_group_now(checkout, &mut work, group),
        Err(error) => work.fail(group.name, group.promises(&checkout.root), &error),
    }
    Ok(report::end(&work))
}

/// `make e2e T=names`.
pub(crate) fn run_promises(checkout: &Checkout, names: &[&str]) -> Result<bool, Failure> {
    on_cluster(checkout, group::group("core")?, names)
}

fn on_cluster(checkout: &Checkout, group: &Group, names: &[&str]) -> Result<bool, Failure> {
    const BUILD: &str = "build programs and promises";
    let tools = cluster::tools();
    let missing_tools = checkout.missing_tools(&tools);
    let mut missing = checkout.missing_rest(true);
    let others: u64 = missing_tools.iter().map(|missing| missing.seconds).sum();
    missing.extend(missing_tools);
    let mut steps = vec![Step::in_state(BUILD, checkout.state(), [900 + others / 2, 400 + others / 2, 120 + others])];
    steps.extend(cluster::steps(checkout));
    steps.extend(group_steps(checkout, group));
    steps.push(cluster::last_step());
    let mut work = Work::new(Clock::from_env()?, Estimates::read(&checkout.cache), steps);
    report::begin("make e2e", checkout, &missing, &work);
    slipway_provision::packages::ensure(slipway_provision::packages::BUILD)?;
    checkout.restore_crates();
    let beside = checkout.build_tools(&tools);
    let built = work.call(BUILD, || {
        let built = checkout.build(&["build", "--workspace", "--bins"]).and_then(|()| {
            checkout.build(&[
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
    if built && cluster::prepare(checkout, &mut work, names.is_empty()) {
        cluster::promises(checkout, &mut work, group, names);
    } else {
        work.fail(group.name, group.promises(&checkout.root), "there is no cluster with Slipway on it");
    }
    cluster::finish(checkout, &mut work);
    Ok(report::end(&work))
}

/// The steps of a group: getting its tools, where that is a step of its own, and running it.
fn group_steps(checkout: &Checkout, group: &Group) -> Vec<Step> {
    let mut steps = Vec::new();
    if group.leave_out == LeaveOut::MissingTools {
        let present = group.tools_present(&checkout.cache, &checkout.root);
        steps.push(Step::depending(INSTALL_CLIENTS, present, 1, group.cold_seconds));
    }
    steps.push(Step::new(group.name, group.warm_seconds));
    steps
}

/// Runs a group when its turn has come, or counts it as skipped or failed.
fn run_or_leave_out(checkout: &Checkout, work: &mut Work, group: &Group, ready: bool, all: bool) {
    let promises = group.promises(&checkout.root);
    let situation = Situation {
        tools_present: group.tools_present(&checkout.cache, &checkout.root),
        left: work.clock.left(),
        too_late: work.clock.too_late() && !all,
        all,
    };
    match group.decide(situation) {
        Decision::Run if !ready => work.fail(group.name, promises, "there is no cluster with Slipway on it"),
        Decision::Run => run_group_now(checkout, work, group),
        Decision::Skip(reason) => work.skip(group.name, promises, &reason),
        Decision::Fail(reason) => work.fail(group.name, promises, &reason),
    }
}

fn run_group_now(checkout: &Checkout, work: &mut Work, group: &Group) {
    if group.name != CLIENTS {
        cluster::promises(checkout, work, group, &[]);
        return;
    }
    let mut folders = Vec::new();
    let installed = work.call(INSTALL_CLIENTS, || {
        folders = checkout.client_environments().map_err(|error| error.to_string())?;
        Ok(())
    });
    if !installed {
        return work.fail(group.name, group.promises(&checkout.root), "the clients could not be installed");
    }
    let library = match slipway_provision::libraries::onnx_runtime(&checkout.cache, &checkout.root) {
        Ok(library) => library,
        Err(error) => return work.fail(group.name, group.promises(&checkout.root), &error.to_string()),
    };
    let mut command = checkout.command("serving-runtime/tests/clients/run.sh", &[]);
    work.run(group.name, command.arg(checkout.built("slipway-runtime")).arg(library).args(folders));
}
