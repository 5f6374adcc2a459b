//! Measures the model server and the gateway of Slipway beside others: same model files, same load, same machine, same run.
//!
//! What is compared is CPU time per request (user and system, of the server's whole process tree): on a machine that is shared it is far more stable than
//! requests per second or percentiles, which are reported beside the load average. Servers run on one core, the load on another; rounds are interleaved.

mod conformance;
mod gateway;
mod jobs;
mod load;
mod measure;
mod model;
mod peers;
mod process;
mod raw;
mod report;
mod runtime;
mod vary;
mod venv;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Model servers.
    Runtime(Options),
    /// Gateways: the hop alone.
    Gateway(Options),
    /// The queue of jobs, on each broker.
    Jobs(Options),
    /// Checks who speaks the Open Inference Protocol how well.
    Conformance(Options),
    /// Writes the table and the plots of the results so far.
    Report(Options),
}

/// What all measurements have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Where results, models and other people's programs are kept.
    #[arg(long, default_value = "target/bench")]
    pub(crate) dir: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "docs/bench")]
    pub(crate) report: PathBuf,
    /// Only these, by name.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only these models.
    #[arg(long, value_delimiter = ',')]
    pub(crate) models: Vec<String>,
    /// Seconds of each measurement, after a fifth of it as warm-up.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Interleaved rounds; the report shows the median.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Connections of the load.
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: usize,
    /// Core for servers.
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// Core for the load.
    #[arg(long, default_value_t = 1)]
    pub(crate) load_core: usize,
}

impl Options {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == name)
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Runtime(options) => runtime::run(&options),
        Command::Gateway(options) => gateway::run(&options),
        Command::Jobs(options) => jobs::run(&options),
        Command::Conformance(options) => conformance::run(&options),
        Command::Report(options) => report::write(&options),
    }
}
