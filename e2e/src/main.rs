//! `slipway-e2e`: brings a real Kubernetes cluster up and down on this machine, and runs things in it.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use slipway_e2e::cluster::{self, Cluster, wait};
use slipway_e2e::layout::DEFAULT_NAME;
use slipway_e2e::node::{components::Options, down, up};
use slipway_e2e::progress::Step;
use slipway_e2e::provision::toolchain;
use slipway_e2e::{Layout, images};

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Name of the cluster; several can be up at once.
    #[arg(long, global = true, env = cluster::NAME_VARIABLE, default_value = DEFAULT_NAME)]
    name: String,
}

#[derive(Subcommand)]
enum Verb {
    /// Builds what is missing and brings the cluster up. With CONTEXT set, only makes sure of the client programs.
    Up {
        /// Let the apiserver write an audit log to logs/audit.jsonl of the cluster's folder.
        #[arg(long)]
        audit: bool,
        /// Build also what only some of the promises need.
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
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let layout = Layout::new(&arguments.name)?;
    match arguments.verb {
        Verb::Up { audit, all } => match cluster::foreign_context() {
            Some(context) => use_foreign(&layout, &context).await,
            None => Ok(up::up(&layout, Options { audit, all }).await?),
        },
        Verb::Down if cluster::foreign_context().is_some() => {
            bail!("CONTEXT is set: that cluster is not ours to take down")
        }
        Verb::Down => Ok(Step::run(format!("taking cluster {} down", layout.name()), || down::down(&layout))?),
        Verb::Images { only, no_cargo } => Ok(images::images(&layout, &only, !no_cargo).await?),
        Verb::Wait { deadline } => wait_until_up(&arguments.name, Duration::from_secs(deadline)).await,
        Verb::Env => {
            print_env(&layout);
            Ok(())
        }
        Verb::Exec { command } => exec(&arguments.name, &command).await,
    }
}

async fn use_foreign(layout: &Layout, context: &str) -> anyhow::Result<()> {
    toolchain::ensure_clients(layout)?;
    let cluster = Cluster::open(layout.name()).await?;
    let version = cluster.client().apiserver_version().await.with_context(|| format!("context {context}"))?;
    eprintln!("using context {context}: Kubernetes {}", version.git_version);
    Ok(())
}

async fn wait_until_up(name: &str, deadline: Duration) -> anyhow::Result<()> {
    let answers = || async {
        let cluster = Cluster::open(name).await.map_err(|error| error.to_string())?;
        cluster.client().apiserver_version().await.map(drop).map_err(|error| error.to_string())
    };
    Ok(wait::until("the cluster answers", deadline, answers).await?)
}

fn print_env(layout: &Layout) {
    for (variable, value) in cluster::environment(layout) {
        // Single quotes, with those inside written as shells want them.
        println!("export {variable}='{}'", value.replace('\'', "'\\''"));
    }
}

/// Becomes the command, so that signals and the exit status are its own.
async fn exec(name: &str, command: &[String]) -> anyhow::Result<()> {
    let cluster = Cluster::open(name).await?;
    let mut wrapped = match cluster.is_foreign() {
        // The network of a foreign cluster is not here to enter.
        true => {
            let mut plain = Command::new("env");
            cluster::set_environment(&mut plain, cluster.layout());
            plain
        }
        false => cluster.nsenter()?,
    };
    let error = wrapped.args(command).exec();
    Err(error).with_context(|| format!("cannot run {}", command.join(" ")))
}
