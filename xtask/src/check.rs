//! Tier 0: what needs no cluster.

use slipway_provision::{libraries, packages};

use crate::checkout::{Beside, Checkout};
use crate::clock::Clock;
use crate::estimate::Estimates;
use crate::work::{Step, Work};
use crate::{features, report};

/// Go programs that tests and charts run.
pub(crate) const TOOLS: [&str; 2] = ["helm", "nats"];

const PACKAGES: &str = "Debian packages";
const FORMAT: &str = "format";
const DEPENDENCIES: &str = "licences, versions, origins of dependencies";
const FEATURES: &str = "one feature resolution";
const LINTS: &str = "lints";
const BUILD: &str = "build programs and tests";
const OTHERS: &str = "programs of other projects";
const TESTS: &str = "tests of the workspace";
const CHARTS: &str = "charts";

/// The steps of the tier; `others` is how long building other projects' programs takes on its own.
pub(crate) fn steps(checkout: &Checkout, others: u64) -> Vec<Step> {
    let state = checkout.state();
    vec![
        Step::new(PACKAGES, if checkout.lacks_packages() { 60 } else { 1 }),
        Step::new(FORMAT, 5),
        Step::depending(DEPENDENCIES, checkout.has_cargo_deny(), 5, 150),
        Step::new(FEATURES, 3),
        Step::in_state(LINTS, state, [420, 120, 60]),
        Step::in_state(BUILD, state, [1000, 500, 240]),
        // They are built beside all of the above, which gives them about a third of the machine.
        Step::depending(OTHERS, others == 0, 0, others * 2 / 3),
        Step::new(TESTS, 150),
        Step::new(CHARTS, 5),
    ]
}

/// Runs the tier alone.
pub(crate) fn run(checkout: &Checkout) -> Result<bool, crate::Failure> {
    let mut missing = checkout.missing_rest(true);
    missing.extend(checkout.missing_tools(&TOOLS));
    let others = checkout.missing_tools(&TOOLS).iter().map(|missing| missing.seconds).sum();
    let mut work = Work::new(Clock::from_env()?, Estimates::read(&checkout.cache), steps(checkout, others));
    report::begin("make check", checkout, &missing, &work);
    let beside = checkout.build_tools(&TOOLS);
    run_steps(checkout, &mut work, beside);
    Ok(report::end(&work))
}

/// Runs the steps; returns whether the programs are built and the other projects' programs are there.
pub(crate) fn run_steps(checkout: &Checkout, work: &mut Work, beside: Beside) -> bool {
    let packages = || packages::ensure(packages::BUILD).map_err(|error| error.to_string());
    work.call(PACKAGES, packages);
    checkout.restore_crates();
    work.run(FORMAT, &mut checkout.command("cargo", &["fmt", "--all", "--check"]));
    work.run(DEPENDENCIES, &mut checkout.command(".ci/deny", &[]));
    work.call(FEATURES, || features::check(checkout));
    work.run(
        LINTS,
        &mut checkout.cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    );
    let built = work.call(BUILD, || build(checkout));
    checkout.save_crates();
    let others = work.call(OTHERS, || beside.join());
    if built {
        // Everything is built; what is compiled here is a mistake in `build`.
        work.run(TESTS, &mut checkout.cargo(&["test", "--quiet", "--workspace"]));
    } else {
        work.fail(TESTS, 1, "the build failed");
    }
    work.call(CHARTS, || {
        charts(checkout).map_err(|error| error.to_string()).and_then(|ok| ok.then_some(()).ok_or("see above".into()))
    });
    built && others
}

/// Tests first: they switch on all features, and bring most programs.
fn build(checkout: &Checkout) -> Result<(), String> {
    libraries::onnx_runtime(&checkout.cache, &checkout.root).map_err(|error| error.to_string())?;
    checkout.build(&["test", "--workspace", "--no-run"])?;
    checkout.build(&["build", "--workspace", "--bins"])
}

/// Runs the tests of the charts; returns whether they held.
pub(crate) fn charts(checkout: &Checkout) -> slipway_provision::Result<bool> {
    let helm = checkout.tool("helm")?;
    let mut command = checkout.command("charts/tests/run.sh", &[]);
    Ok(command.env("HELM", helm).status().is_ok_and(|status| status.success()))
}
