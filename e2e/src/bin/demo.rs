//! `slipway-demo`: installs Slipway by helm, and shows what it does.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slipway_e2e::cluster::Cluster;
use slipway_e2e::demo;
use slipway_e2e::error::in_words;
use slipway_e2e::product::{self, Prometheus};

/// Installs Slipway by helm, and shows what it does.
///
/// It works in the cluster that `slipway-e2e up` brought up; `make demo` does all of it. SLIPWAY_E2E_NAME names another cluster of ours, CONTEXT a
/// context of your kubeconfig.
#[derive(Parser)]
#[command(name = "slipway-demo", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Installs both charts and waits until the operator is ready.
    Install,
    /// Takes both charts away.
    Uninstall,
    /// Rolls versions of a model out and back under load, and accounts for every request.
    Run {
        /// Requests a second.
        #[arg(long, default_value_t = 200)]
        rate: u32,
    },
}

fn main() -> ExitCode {
    // Before anything else, which may fail where there is no cluster.
    let verb = Arguments::parse().verb;
    match run(&verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(verb: &Verb) -> anyhow::Result<()> {
    let cluster = Cluster::from_env().await?;
    match verb {
        Verb::Install => Ok(product::install(&cluster, &Prometheus::Url(cluster.prometheus_url()?)).await?),
        Verb::Uninstall => Ok(product::uninstall(&cluster).await?),
        Verb::Run { rate } => demo::run(&cluster, *rate).await,
    }
}
