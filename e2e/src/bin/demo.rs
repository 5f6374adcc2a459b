//! `slipway-demo`: installs Slipway by helm, and shows what it does.

use clap::{Parser, Subcommand};
use slipway_e2e::cluster::Cluster;
use slipway_e2e::{demo, product};

#[derive(Parser)]
#[command(version, about)]
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cluster = Cluster::from_env().await?;
    match Arguments::parse().verb {
        Verb::Install => Ok(product::install(&cluster).await?),
        Verb::Uninstall => Ok(product::uninstall(&cluster).await?),
        Verb::Run { rate } => demo::run(&cluster, rate).await,
    }
}
