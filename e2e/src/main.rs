//! `slipway-demo`: installs Slipway by helm, and demonstrates it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slipway_cluster::cluster::ClusterHandle;
use slipway_cluster::error::in_words;
use slipway_e2e::demo;
use slipway_e2e::product::{self, PrometheusSource};

/// Installs Slipway by helm, and demonstrates it.
///
/// It uses the cluster that `slipway-e2e up` brought up; `make demo` runs all steps.
/// SLIPWAY_E2E_NAME names another local cluster, CONTEXT a context of your kubeconfig.
#[derive(Parser)]
#[command(name = "slipway-demo", version)]
struct DemoArguments {
    #[command(subcommand)]
    verb: DemoCommand,
}

#[derive(Subcommand)]
enum DemoCommand {
    /// Installs both charts and waits until the operator is ready.
    Install,
    /// Uninstalls both charts.
    Uninstall,
    /// Rolls versions of a model out and back under load, and accounts for every request.
    Run {
        /// Requests per second.
        #[arg(long, default_value_t = 200)]
        rate: u32,
    },
}

fn main() -> ExitCode {
    // Parsed before any other step, which may fail without a cluster.
    let verb = DemoArguments::parse().verb;
    match run_command(&verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_words(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run_command(verb: &DemoCommand) -> anyhow::Result<()> {
    let cluster = ClusterHandle::from_env().await?;
    match verb {
        DemoCommand::Install => {
            Ok(product::install_charts(&cluster, &PrometheusSource::Url(cluster.prometheus_url()?))
                .await?)
        }
        DemoCommand::Uninstall => Ok(product::uninstall_charts(&cluster).await?),
        DemoCommand::Run { rate } => demo::run_demo(&cluster, *rate).await,
    }
}
