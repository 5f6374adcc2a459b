//! `make demo`: creates a cluster, installs Slipway by helm, rolls models out and back under load,
//! and accounts for every request.

use std::process::Command;

use slipway_provision::{go_tools, libraries};

use crate::checkout::{Checkout, DEMO_PACKAGES};
use crate::cluster_source::{ClusterSource, KindCluster};
use crate::estimate::DurationEstimates;
use crate::prerequisites::{self, PackageUse};
use crate::step_runner::{PlannedStep, StepRunner};
use crate::time_budget::TimeBudget;
use crate::{CommandError, report};

const BUILD: &str = "build programs";
const EXTERNAL_PROGRAMS: &str = "programs of other projects";
const UP: &str = "cluster up";
const IMAGES: &str = "build images";
const LOAD: &str = "load images";
const DEMO: &str = "demo";
const DOWN: &str = "cluster down";

/// Short names of the images that the demo runs.
const DEMO_IMAGES: [&str; 6] = [
    "slipway-operator",
    "slipway-gateway",
    "slipway-runtime",
    "slipway-redis",
    "slipway-loadgen",
    "slipway-model-store",
];
/// The Prometheus that the chart installs: on other clusters its image comes from a registry.
const PROMETHEUS: &str = "slipway-prometheus";

/// Runs the demo; returns whether all of its checks passed.
pub(crate) fn run_demo(checkout: &Checkout) -> Result<bool, CommandError> {
    let (engine, why) = ClusterSource::detect()?;
    println!("{why}");
    let tools: &[&'static str] = match engine {
        ClusterSource::Build => go_tools::DEMO,
        _ => checkout.client_tools(),
    };
    let packages = match engine {
        ClusterSource::Build => PackageUse::Cluster,
        ClusterSource::Kind => PackageUse::Build,
        ClusterSource::Context(_) => PackageUse::Images,
    };
    let mut missing = prerequisites::missing_packages(packages);
    let mut steps = vec![prerequisites::package_step(&missing)];
    missing.extend(checkout.missing_prerequisites(false));
    let missing_tools = checkout.missing_tools(tools);
    let others: u64 = missing_tools.iter().map(|missing| missing.seconds).sum();
    missing.extend(missing_tools);
    steps.extend(demo_steps(checkout, &engine, others));
    let mut work =
        StepRunner::new(TimeBudget::from_env()?, DurationEstimates::read(&checkout.cache), steps);
    report::print_plan("make demo", checkout, &missing, &work);

    if !prerequisites::install_packages(&mut work, packages) {
        return Ok(false);
    }
    let beside = checkout.start_tool_build(tools);
    let built = work.run_function(BUILD, || build_programs(checkout));
    if !work.run_function(EXTERNAL_PROGRAMS, || beside.join()) || !built {
        return Ok(false);
    }
    let held = match &engine {
        ClusterSource::Build => demo_on_built(checkout, &mut work),
        ClusterSource::Kind => demo_on_kind(checkout, &mut work),
        ClusterSource::Context(_) => demo_on_context(checkout, &mut work),
    };
    println!("\nafter {}", slipway_provision::format_minutes(work.time_budget.elapsed().as_secs()));
    Ok(held)
}

fn demo_steps(checkout: &Checkout, engine: &ClusterSource, others: u64) -> Vec<PlannedStep> {
    let images = checkout.cache.path("images").is_dir();
    let mut steps = vec![
        PlannedStep::for_state(BUILD, checkout.build_state(), [600, 240, 60]),
        // They are built in parallel with our own programs, which leaves them about half of the
        // machine.
        PlannedStep::cold_or_warm(EXTERNAL_PROGRAMS, others == 0, 0, others * 3 / 4),
    ];
    let rest: &[PlannedStep] = match engine {
        ClusterSource::Build => {
            &[PlannedStep::new(UP, 15), PlannedStep::cold_or_warm(IMAGES, images, 20, 50)]
        }
        ClusterSource::Kind => &[
            PlannedStep::new(UP, 60),
            PlannedStep::cold_or_warm(IMAGES, images, 20, 60),
            PlannedStep::new(LOAD, 20),
        ],
        ClusterSource::Context(_) => &[
            PlannedStep::new(UP, 5),
            PlannedStep::cold_or_warm(IMAGES, images, 20, 50),
            PlannedStep::new(LOAD, 20),
        ],
    };
    steps.extend_from_slice(rest);
    steps.push(PlannedStep::new(DEMO, 130));
    if !matches!(engine, ClusterSource::Context(_)) && !keeps_cluster() {
        steps.push(PlannedStep::new(DOWN, 5));
    }
    steps
}

fn keeps_cluster() -> bool {
    std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty())
}

fn build_programs(checkout: &Checkout) -> Result<(), String> {
    libraries::ensure_onnx_runtime(&checkout.cache, &checkout.root)
        .map_err(|error| error.to_string())?;
    checkout.restore_crates();
    let packages = DEMO_PACKAGES.map(|package| format!("--package={package}"));
    let arguments: Vec<&str> =
        ["build", "--bins"].into_iter().chain(packages.iter().map(String::as_str)).collect();
    let built = checkout.cargo_build(&arguments);
    checkout.save_crates();
    built
}

fn harness_command(checkout: &Checkout, arguments: &[&str]) -> Command {
    let mut command = Command::new(checkout.built_program("slipway-e2e"));
    command.current_dir(&checkout.root).args(arguments);
    command
}

/// Builds images of the requested profile; the programs of the tests' profile are built already.
fn images_command(checkout: &Checkout, options: &[&str], names: &[&str]) -> Command {
    let mut command = harness_command(checkout, &["images"]);
    if std::env::var("PROFILE").map_or(true, |profile| profile.is_empty() || profile == "dev") {
        command.arg("--no-cargo");
    }
    command.args(options).args(names);
    command
}

fn run_demo_program(
    checkout: &Checkout,
    work: &mut StepRunner,
    aim: impl FnOnce(&mut Command),
) -> bool {
    let rate =
        std::env::var("RATE").ok().filter(|rate| !rate.is_empty()).unwrap_or_else(|| "200".into());
    let mut command = harness_command(
        checkout,
        &["exec", "--", "target/debug/slipway-demo", "run", "--rate", &rate],
    );
    aim(&mut command);
    work.run_command(DEMO, &mut command)
}

fn demo_on_built(checkout: &Checkout, work: &mut StepRunner) -> bool {
    let held = work.run_command(UP, &mut harness_command(checkout, &["up"]))
        && work.run_command(
            IMAGES,
            &mut images_command(checkout, &[], &[&DEMO_IMAGES[..], &[PROMETHEUS]].concat()),
        )
        && run_demo_program(checkout, work, |_| {});
    if keeps_cluster() {
        println!(
            "\nThe cluster is still up. To look around:\n  eval \"$(target/debug/slipway-e2e env)\"\n  kubectl -n slipway-demo get modeldeployments\n  make down"
        );
        return held;
    }
    work.clean_up(DOWN, &mut checkout.command("scripts/down", &[])) && held
}

fn demo_on_kind(checkout: &Checkout, work: &mut StepRunner) -> bool {
    let name = std::env::var("SLIPWAY_E2E_NAME").ok().filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "slipway".into());
    let kind = KindCluster::new(&name, &checkout.root);
    let up = work.run_function(UP, || {
        std::fs::create_dir_all(checkout.root.join("target/e2e"))
            .map_err(|error| error.to_string())?;
        let text = |error: slipway_provision::ProvisionError| error.to_string();
        let clusters =
            slipway_provision::command::run_command(&mut kind.list_command()).map_err(text)?;
        let there = clusters.lines().any(|line| line.trim() == name);
        slipway_provision::command::run_command(&mut if there {
            kind.export_command()
        } else {
            kind.create_command()
        })
        .map(drop)
        .map_err(text)
    });
    let tags: Vec<String> =
        DEMO_IMAGES.iter().map(|image| format!("docker.io/slipway/{image}:dev")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let held = up
        && work.run_command(IMAGES, &mut images_command(checkout, &["--docker"], &DEMO_IMAGES))
        && work.run_command(LOAD, &mut kind.load_command(&tags))
        && run_demo_program(checkout, work, |command| kind.set_environment(command));
    if keeps_cluster() {
        println!(
            "\nThe cluster is still up. To look around:\n  {}\n  kubectl -n slipway-demo get modeldeployments\n  kind delete cluster --name {name}",
            kind.kubeconfig_hint()
        );
        return held;
    }
    work.clean_up(DOWN, &mut kind.delete_command()) && held
}

/// Runs the demo on a cluster of the user, which is kept, with the namespaces `slipway-demo` and
/// `slipway-system` for inspection.
fn demo_on_context(checkout: &Checkout, work: &mut StepRunner) -> bool {
    work.run_command(UP, &mut harness_command(checkout, &["up"]))
        && work.run_command(IMAGES, &mut images_command(checkout, &[], &DEMO_IMAGES))
        && work.run_command(LOAD, &mut checkout.command("scripts/load-images", &[]))
        && run_demo_program(checkout, work, |_| {})
}
