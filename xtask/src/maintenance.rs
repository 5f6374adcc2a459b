//! The cache by itself.

use slipway_provision::{libraries, packages};

use crate::checkout::Checkout;
use crate::clock::Clock;
use crate::estimate::Estimates;
use crate::group::{CLIENTS, group};
use crate::work::{Step, Work};
use crate::{Failure, cluster, report};

/// `make prefetch`: everything that comes from elsewhere, for demo and tests.
pub(crate) fn prefetch(checkout: &Checkout) -> Result<bool, Failure> {
    const PACKAGES: &str = "Debian packages";
    const LIBRARY: &str = "ONNX Runtime";
    const CRATES: &str = "crates of the registry: lints, tests, programs";
    const DENY: &str = "cargo-deny";
    const PYTHON: &str = "Python packages of the public clients";
    const BASES: &str = "base images";
    const TOOLS: &str = "programs of other projects";
    let tools = cluster::tools();
    let missing_tools = checkout.missing_tools(&tools);
    let others: u64 = missing_tools.iter().map(|missing| missing.seconds).sum();
    let mut missing = checkout.missing_rest(true);
    missing.extend(missing_tools);
    let clients = group(CLIENTS)?;
    let steps = vec![
        Step::new(PACKAGES, if checkout.lacks_packages() { 60 } else { 1 }),
        Step::new(LIBRARY, 15),
        Step::depending(DENY, checkout.has_cargo_deny(), 1, 150),
        Step::in_state(CRATES, checkout.state(), [1300, 600, 200]),
        Step::depending(PYTHON, clients.tools_present(&checkout.cache, &checkout.root), 1, clients.cold_seconds),
        Step::depending(TOOLS, others == 0, 0, others * 2 / 3),
        Step::depending(BASES, checkout.cache.path("base").is_dir(), 2, 40),
    ];
    let mut work = Work::new(Clock::from_env()?, Estimates::read(&checkout.cache), steps);
    report::begin("make prefetch", checkout, &missing, &work);
    let text = |error: slipway_provision::Error| error.to_string();
    work.call(PACKAGES, || {
        packages::ensure(packages::BUILD.iter().chain(packages::NODE).chain(packages::IMAGES)).map_err(text)
    });
    let beside = checkout.build_tools(&tools);
    work.call(LIBRARY, || libraries::onnx_runtime(&checkout.cache, &checkout.root).map(drop).map_err(text));
    work.run(DENY, &mut checkout.command(".ci/deny", &["--only-install"]));
    checkout.restore_crates();
    work.call(CRATES, || {
        checkout.build(&["clippy", "--workspace", "--all-targets"])?;
        checkout.build(&["test", "--workspace", "--no-run"])?;
        checkout.build(&["build", "--workspace", "--bins"])
    });
    checkout.save_crates();
    work.call(PYTHON, || checkout.client_environments().map(drop).map_err(text));
    work.call(TOOLS, || beside.join());
    let mut bases = std::process::Command::new(checkout.built("slipway-e2e"));
    work.run(BASES, bases.current_dir(&checkout.root).args(["images", "--no-cargo", "--only-bases"]));
    Ok(report::end(&work))
}

/// `make clean-cache`.
pub(crate) fn clean(checkout: &Checkout) -> Result<bool, Failure> {
    checkout.cache.clean()?;
    println!("removed {}", checkout.cache.root().display());
    Ok(true)
}
