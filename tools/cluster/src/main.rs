//! `slipway-e2e`: starts and removes a real Kubernetes cluster on this machine, and runs programs
//! in it.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use slipway_cluster::cluster::ClusterHandle;
use slipway_cluster::error::{HarnessError, in_words};
use slipway_cluster::layout::default_name;
use slipway_cluster::node::components::UpOptions;
use slipway_cluster::node::{down, up};
use slipway_cluster::progress::TimedStep;
use slipway_cluster::{ClusterLayout, environment, images, wait};
use slipway_provision::{go_tools, packages};

/// Brings a real Kubernetes cluster up and down on this machine, and runs programs in it.
#[derive(Parser)]
#[command(version)]
struct HarnessArguments {
    #[command(subcommand)]
    verb: HarnessCommand,
    /// Name of the cluster; several can be up at once.
    #[arg(long, global = true, env = environment::NAME_VARIABLE, default_value_t = default_name())]
    name: String,
}

#[derive(Subcommand)]
enum HarnessCommand {
    /// Builds what is missing and brings the cluster up. With CONTEXT set, only ensures that the
    /// client programs exist.
    Up {
        /// Write an audit log of the apiserver to logs/audit.jsonl in the cluster's folder.
        #[arg(long)]
        audit: bool,
        /// Also build and run the programs that only some of the promises need: Prometheus,
        /// metrics-server, and the programs of prometheus-adapter and NATS.
        #[arg(long)]
        all: bool,
    },
    /// Removes the cluster completely.
    Down,
    /// Builds the images of the project and imports them into the cluster, if it is up.
    Images {
        /// Short names of the images; all if none is given.
        only: Vec<String>,
        /// Use the programs of the last build, without running cargo.
        #[arg(long)]
        no_cargo: bool,
        /// Build with docker, and leave the images there.
        #[arg(long, conflicts_with = "only_bases")]
        docker: bool,
        /// Build only the bases of the images.
        #[arg(long)]
        only_bases: bool,
    },
    /// Waits until the cluster answers.
    Wait {
        /// Time limit in seconds.
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
    match run_command().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace: the cause is a program or a condition, and the message contains
            // its output.
            eprintln!("error: {}", in_words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run_command() -> anyhow::Result<()> {
    let arguments = HarnessArguments::parse();
    let layout = ClusterLayout::new(&arguments.name)?;
    match arguments.verb {
        HarnessCommand::Up { audit, all } => match environment::foreign_context() {
            Some(context) => prepare_foreign(&layout, &context).await,
            None => {
                require_root("up")?;
                Ok(up::bring_up(&layout, UpOptions { audit, all }).await?)
            }
        },
        HarnessCommand::Down if environment::foreign_context().is_some() => {
            bail!("CONTEXT is set: that cluster is not ours to take down")
        }
        HarnessCommand::Down => take_down(&layout),
        HarnessCommand::Images { only, no_cargo, docker, only_bases } => Ok(images::build_images(
            &layout,
            &only,
            images::ImageOptions { no_cargo, docker, only_bases },
        )
        .await?),
        HarnessCommand::Wait { deadline } => {
            wait_until_up(&arguments.name, Duration::from_secs(deadline)).await
        }
        HarnessCommand::Env => print_env(&layout),
        HarnessCommand::Exec { command } => exec_command(&arguments.name, &command).await,
    }
}

fn take_down(layout: &ClusterLayout) -> anyhow::Result<()> {
    // If nothing exists, no rights are needed.
    if down::cluster_exists(layout)? {
        require_root("down")?;
    }
    Ok(TimedStep::run(format!("taking cluster {} down", layout.name()), || {
        down::remove_cluster(layout)
    })?)
}

async fn prepare_foreign(layout: &ClusterLayout, context: &str) -> anyhow::Result<()> {
    let cluster = ClusterHandle::open(layout.name()).await?;
    let version =
        cluster.client().apiserver_version().await.with_context(|| format!("context {context}"))?;
    // Last, as it takes minutes the first time.
    for (tool, program) in [("kubernetes", "/usr/bin/kubectl"), ("helm", "/usr/bin/helm")] {
        if !packages::is_in_path(program) {
            go_tools::ensure_tools(layout.cache(), layout.root(), &[tool])?;
        }
    }
    eprintln!("using context {context}: Kubernetes {}", version.git_version);
    Ok(())
}

async fn wait_until_up(name: &str, deadline: Duration) -> anyhow::Result<()> {
    if environment::foreign_context().is_some() {
        // A missing context does not appear by waiting.
        ClusterHandle::open(name).await?;
    }
    let answers = || async {
        let cluster = ClusterHandle::open(name).await.map_err(|error| in_words(&error))?;
        cluster.client().apiserver_version().await.map(drop).map_err(|error| in_words(&error))
    };
    Ok(wait::until_ok("the cluster answers", deadline, answers).await?)
}

fn print_env(layout: &ClusterLayout) -> anyhow::Result<()> {
    // Single quotes, with inner quotes escaped for shells.
    let line = |(variable, value): (&str, String)| {
        format!("export {variable}='{}'\n", value.replace('\'', "'\\''"))
    };
    let lines: String = environment::environment_variables(layout).into_iter().map(line).collect();
    std::io::stdout().write_all(lines.as_bytes()).context("cannot write to standard output")
}

/// The owner of a process's folder in /proc is its effective user.
fn require_root(verb: &'static str) -> anyhow::Result<()> {
    let us = std::fs::metadata("/proc/self").context("cannot read /proc/self")?;
    ensure!(us.uid() == 0, HarnessError::NotRoot(verb));
    Ok(())
}

/// Replaces this process by the command, so that signals and the exit status are the command's own.
async fn exec_command(name: &str, command: &[String]) -> anyhow::Result<()> {
    let cluster = ClusterHandle::open(name).await?;
    let mut wrapped = match cluster.is_foreign() {
        // The network of a foreign cluster cannot be entered from here.
        true => {
            let mut plain = Command::new("env");
            environment::set_environment(&mut plain, cluster.layout());
            plain
        }
        false => {
            require_root("exec")?;
            cluster.nsenter_command()?
        }
    };
    let error = wrapped.args(command).exec();
    Err(error).with_context(|| format!("cannot run {}", command.join(" ")))
}
