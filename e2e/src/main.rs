//! `slipway-e2e`: brings a real Kubernetes cluster up and down on this machine, and runs things in it.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use slipway_e2e::cluster::Cluster;
use slipway_e2e::error::{Error, in_words};
use slipway_e2e::layout::default_name;
use slipway_e2e::node::{components::Options, down, up};
use slipway_e2e::progress::Step;
use slipway_e2e::{Layout, images};
use slipway_e2e::{environment, wait};
use slipway_provision::{go_tools, packages};

/// Brings a real Kubernetes cluster up and down on this machine, and runs things in it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Name of the cluster; several can be up at once.
    #[arg(long, global = true, env = environment::NAME_VARIABLE, default_value_t = default_name())]
    name: String,
}

#[derive(Subcommand)]
enum Verb {
    /// Builds what is missing and brings the cluster up. With CONTEXT set, only makes sure of the client programs.
    Up {
        /// Let the apiserver write an audit log to logs/audit.jsonl of the cluster's folder.
        #[arg(long)]
        audit: bool,
        /// Build and run also what only some of the promises need: Prometheus, metrics-server, and the programs of prometheus-adapter and NATS.
        #[arg(long)]
        all: bool,
    },
    /// Takes the cluster down and leaves nothing of it.
    Down,
    /// Builds the images of the project and imports them into the cluster, when it is up.
    Images {
        /// Short names of the images; all, when none is given.
        only: Vec<String>,
        /// Take the programs as they were built last, without asking cargo.
        #[arg(long)]
        no_cargo: bool,
        /// Build with docker, and leave the images there.
        #[arg(long, conflicts_with = "only_bases")]
        docker: bool,
        /// Make only what the images are built on.
        #[arg(long)]
        only_bases: bool,
    },
    /// Waits until the cluster answers.
    Wait {
        /// How long, in seconds.
        #[arg(long, default_value_t = 120)]
        deadline: u64,
    },
    /// Prints `export` lines for a shell: KUBECONFIG, PATH and the addresses.
    Env,
    /// Runs a command in the network of the node, with kubeconfig and programs set.
    Exec {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace: what failed is a program or a condition, and the message shows its output.
            eprintln!("error: {}", in_words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let layout = Layout::new(&arguments.name)?;
    match arguments.verb {
        Verb::Up { audit, all } => match environment::foreign_context() {
            Some(context) => use_foreign(&layout, &context).await,
            None => {
                as_root("up")?;
                Ok(up::up(&layout, Options { audit, all }).await?)
            }
        },
        Verb::Down if environment::foreign_context().is_some() => {
            bail!("CONTEXT is set: that cluster is not ours to take down")
        }
        Verb::Down => take_down(&layout),
        Verb::Images { only, no_cargo, docker, only_bases } => {
            Ok(images::images(&layout, &only, images::Options { no_cargo, docker, only_bases }).await?)
        }
        Verb::Wait { deadline } => wait_until_up(&arguments.name, Duration::from_secs(deadline)).await,
        Verb::Env => print_env(&layout),
        Verb::Exec { command } => exec(&arguments.name, &command).await,
    }
}

fn take_down(layout: &Layout) -> anyhow::Result<()> {
    // Where there is nothing, nobody needs a right.
    if down::exists(layout)? {
        as_root("down")?;
    }
    Ok(Step::run(format!("taking cluster {} down", layout.name()), || down::down(layout))?)
}

async fn use_foreign(layout: &Layout, context: &str) -> anyhow::Result<()> {
    let cluster = Cluster::open(layout.name()).await?;
    let version = cluster.client().apiserver_version().await.with_context(|| format!("context {context}"))?;
    // Last, as it takes minutes the first time.
    for (tool, program) in [("kubernetes", "/usr/bin/kubectl"), ("helm", "/usr/bin/helm")] {
        if !packages::in_path(program) {
            go_tools::ensure(layout.cache(), layout.root(), &[tool])?;
        }
    }
    eprintln!("using context {context}: Kubernetes {}", version.git_version);
    Ok(())
}

async fn wait_until_up(name: &str, deadline: Duration) -> anyhow::Result<()> {
    if environment::foreign_context().is_some() {
        // Waiting does not mend a context that is not there.
        Cluster::open(name).await?;
    }
    let answers = || async {
        let cluster = Cluster::open(name).await.map_err(|error| in_words(&error))?;
        cluster.client().apiserver_version().await.map(drop).map_err(|error| in_words(&error))
    };
    Ok(wait::until("the cluster answers", deadline, answers).await?)
}

fn print_env(layout: &Layout) -> anyhow::Result<()> {
    // Single quotes, with those inside written as shells want them.
    let line = |(variable, value): (&str, String)| format!("export {variable}='{}'\n", value.replace('\'', "'\\''"));
    let lines: String = environment::environment(layout).into_iter().map(line).collect();
    std::io::stdout().write_all(lines.as_bytes()).context("cannot write to standard output")
}

/// The owner of a process's folder in /proc is its effective user.
fn as_root(verb: &'static str) -> anyhow::Result<()> {
    let us = std::fs::metadata("/proc/self").context("cannot read /proc/self")?;
    ensure!(us.uid() == 0, Error::NotRoot(verb));
    Ok(())
}

/// Becomes the command, so that signals and the exit status are its own.
async fn exec(name: &str, command: &[String]) -> anyhow::Result<()> {
    let cluster = Cluster::open(name).await?;
    let mut wrapped = match cluster.is_foreign() {
        // The network of a foreign cluster is not here to enter.
        true => {
            let mut plain = Command::new("env");
            environment::set_environment(&mut plain, cluster.layout());
            plain
        }
        false => {
            as_root("exec")?;
            cluster.nsenter()?
        }
    };
    let error = wrapped.args(command).exec();
    Err(error).with_context(|| format!("cannot run {}", command.join(" ")))
}
