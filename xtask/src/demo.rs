//! `make demo`: a cluster, Slipway installed by helm, models rolled out and back under load, an account of every request.

use std::process::Command;

use slipway_provision::{go_tools, libraries, packages};

use crate::checkout::{Checkout, DEMO_PACKAGES};
use crate::clock::Clock;
use crate::engine::{Engine, Kind};
use crate::estimate::Estimates;
use crate::work::{Step, Work};
use crate::{Failure, report};

const PACKAGES: &str = "Debian packages";
const BUILD: &str = "build programs";
const OTHERS: &str = "programs of other projects";
const UP: &str = "cluster up";
const IMAGES: &str = "build images";
const LOAD: &str = "load images";
const DEMO: &str = "demo";
const DOWN: &str = "cluster down";

/// Images that the demo runs, by their short names.
const RUN: [&str; 6] = [
    "slipway-operator",
    "slipway-gateway",
    "slipway-runtime",
    "slipway-redis",
    "slipway-loadgen",
    "slipway-model-store",
];
/// The Prometheus that the chart brings: elsewhere it comes from a registry.
const PROMETHEUS: &str = "slipway-prometheus";

/// Runs the demo; returns whether everything that it claims held.
pub(crate) fn run(checkout: &Checkout) -> Result<bool, Failure> {
    let (engine, why) = Engine::here()?;
    println!("{why}");
    let tools: &[&'static str] = match engine {
        Engine::Build => go_tools::DEMO,
        _ => checkout.client_tools(),
    };
    let mut missing = checkout.missing_rest(false);
    let missing_tools = checkout.missing_tools(tools);
    let others: u64 = missing_tools.iter().map(|missing| missing.seconds).sum();
    missing.extend(missing_tools);
    let mut work = Work::new(Clock::from_env()?, Estimates::read(&checkout.cache), steps(checkout, &engine, others));
    report::begin("make demo", checkout, &missing, &work);

    let needed = packages::BUILD.iter().chain(if engine == Engine::Build { packages::NODE } else { &[] });
    let needed = needed.chain(if engine == Engine::Kind { &[] } else { packages::IMAGES });
    if !work.call(PACKAGES, || packages::ensure(needed).map_err(|error| error.to_string())) {
        return Ok(false);
    }
    let beside = checkout.build_tools(tools);
    let built = work.call(BUILD, || build(checkout));
    if !work.call(OTHERS, || beside.join()) || !built {
        return Ok(false);
    }
    let held = match &engine {
        Engine::Build => on_built(checkout, &mut work),
        Engine::Kind => on_kind(checkout, &mut work),
        Engine::Context(_) => on_context(checkout, &mut work),
    };
    println!("\nafter {}", slipway_provision::minutes(work.clock.elapsed().as_secs()));
    Ok(held)
}

fn steps(checkout: &Checkout, engine: &Engine, others: u64) -> Vec<Step> {
    let images = checkout.cache.path("images").is_dir();
    let mut steps = vec![
        Step::new(PACKAGES, if checkout.lacks_packages() { 60 } else { 1 }),
        Step::in_state(BUILD, checkout.state(), [600, 240, 60]),
        // They are built beside our own programs, which gives them about half of the machine.
        Step::depending(OTHERS, others == 0, 0, others * 3 / 4),
    ];
    let rest: &[Step] = match engine {
        Engine::Build => &[Step::new(UP, 15), Step::depending(IMAGES, images, 20, 50)],
        Engine::Kind => &[Step::new(UP, 60), Step::depending(IMAGES, images, 20, 60), Step::new(LOAD, 20)],
        Engine::Context(_) => &[Step::new(UP, 5), Step::depending(IMAGES, images, 20, 50), Step::new(LOAD, 20)],
    };
    steps.extend_from_slice(rest);
    steps.push(Step::new(DEMO, 130));
    if !matches!(engine, Engine::Context(_)) && !keeps() {
        steps.push(Step::new(DOWN, 5));
    }
    steps
}

fn keeps() -> bool {
    std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty())
}

fn build(checkout: &Checkout) -> Result<(), String> {
    libraries::onnx_runtime(&checkout.cache, &checkout.root).map_err(|error| error.to_string())?;
    checkout.restore_crates();
    let packages = DEMO_PACKAGES.map(|package| format!("--package={package}"));
    let arguments: Vec<&str> = ["build", "--bins"].into_iter().chain(packages.iter().map(String::as_str)).collect();
    let built = checkout.build(&arguments);
    checkout.save_crates();
    built
}

fn harness(checkout: &Checkout, arguments: &[&str]) -> Command {
    let mut command = Command::new(checkout.built("slipway-e2e"));
    command.current_dir(&checkout.root).args(arguments);
    command
}

/// Images of the profile that is asked for; the programs of the tests' own profile are built already.
fn images(checkout: &Checkout, options: &[&str], names: &[&str]) -> Command {
    let mut command = harness(checkout, &["images"]);
    if std::env::var("PROFILE").map_or(true, |profile| profile.is_empty() || profile == "dev") {
        command.arg("--no-cargo");
    }
    command.args(options).args(names);
    command
}

fn play(checkout: &Checkout, work: &mut Work, aim: impl FnOnce(&mut Command)) -> bool {
    let rate = std::env::var("RATE").ok().filter(|rate| !rate.is_empty()).unwrap_or_else(|| "200".into());
    let mut command = harness(checkout, &["exec", "--", "target/debug/slipway-demo", "run", "--rate", &rate]);
    aim(&mut command);
    work.run(DEMO, &mut command)
}

fn on_built(checkout: &Checkout, work: &mut Work) -> bool {
    let held = work.run(UP, &mut harness(checkout, &["up"]))
        && work.run(IMAGES, &mut images(checkout, &[], &[&RUN[..], &[PROMETHEUS]].concat()))
        && play(checkout, work, |_| {});
    if keeps() {
        println!(
            "\nThe cluster is still up. To look around:\n  eval \"$(target/debug/slipway-e2e env)\"\n  kubectl -n slipway-demo get modeldeployments\n  make down"
        );
        return held;
    }
    work.clean_up(DOWN, &mut checkout.command(".ci/down", &[])) && held
}

fn on_kind(checkout: &Checkout, work: &mut Work) -> bool {
    let name = std::env::var("SLIPWAY_E2E_NAME").ok().filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "slipway".into());
    let kind = Kind::new(&name, &checkout.root);
    let up = work.call(UP, || {
        std::fs::create_dir_all(checkout.root.join("target/e2e")).map_err(|error| error.to_string())?;
        let text = |error: slipway_provision::Error| error.to_string();
        let clusters = slipway_provision::command::run(&mut kind.list()).map_err(text)?;
        let there = clusters.lines().any(|line| line.trim() == name);
        slipway_provision::command::run(&mut if there { kind.export() } else { kind.create() }).map(drop).map_err(text)
    });
    let tags: Vec<String> = RUN.iter().map(|image| format!("docker.io/slipway/{image}:dev")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let held = up
        && work.run(IMAGES, &mut images(checkout, &["--docker"], &RUN))
        && work.run(LOAD, &mut kind.load(&tags))
        && play(checkout, work, |command| kind.aim(command));
    if keeps() {
        println!(
            "\nThe cluster is still up. To look around:\n  {}\n  kubectl -n slipway-demo get modeldeployments\n  kind delete cluster --name {name}",
            kind.hint()
        );
        return held;
    }
    work.clean_up(DOWN, &mut kind.delete()) && held
}

/// A cluster of the user's stays, with the namespaces `slipway-demo` and `slipway-system` for a look around.
fn on_context(checkout: &Checkout, work: &mut Work) -> bool {
    work.run(UP, &mut harness(checkout, &["up"]))
        && work.run(IMAGES, &mut images(checkout, &[], &RUN))
        && work.run(LOAD, &mut checkout.command(".ci/load-images", &[]))
        && play(checkout, work, |_| {})
}
