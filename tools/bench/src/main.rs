//! `slipway-bench`: measures the model server and the gateway of Slipway beside others: same model
//! files, same load, same machine, same run.
//!
//! What is compared is CPU time per request (user and system, of the server's whole process tree):
//! on a machine that is shared it is far more stable than requests per second or percentiles, which
//! are reported beside the load average. Servers run on one core, the load on another; rounds are
//! interleaved.

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
mod variation;
mod venv;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, value_parser};

/// Measures the model server and the gateway of Slipway beside others: same model files, same load,
/// same machine, same run.
#[derive(Debug, Parser)]
#[command(version)]
struct BenchCli {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Model servers.
    Runtime(BenchOptions),
    /// Gateways: the hop alone.
    Gateway(BenchOptions),
    /// The queue of jobs, on each broker.
    Jobs(BenchOptions),
    /// Checks who speaks the Open Inference Protocol how well.
    Conformance(BenchOptions),
    /// Writes the table and the plots of the results so far.
    Report(BenchOptions),
}

/// What all measurements have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchOptions {
    /// Where results, models and other people's programs are kept.
    #[arg(long, default_value = "target/bench")]
    pub(crate) dir: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "docs/bench")]
    pub(crate) report: PathBuf,
    /// Only these, by name.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(measured_names()))]
    pub(crate) only: Vec<String>,
    /// Only these models.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(model::NAMES))]
    pub(crate) models: Vec<String>,
    /// Seconds of each measurement, after a fifth of it as warm-up.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Interleaved rounds; the report shows the median.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Connections of the load.
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// Core for servers.
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// Core for the load.
    #[arg(long, default_value_t = 1)]
    pub(crate) load_core: usize,
}

impl BenchOptions {
    pub(crate) fn is_selected(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == name)
    }

    /// Makes the directory of logs, and the one of results with it.
    pub(crate) fn make_dirs(&self) -> anyhow::Result<()> {
        let logs = self.dir.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))
    }
}

/// Names of all that is measured: one command line serves all commands, so each takes the names of
/// the others.
fn measured_names() -> impl Iterator<Item = &'static str> {
    peers::PeerServer::ALL
        .map(peers::PeerServer::name)
        .into_iter()
        .chain(gateway::NAMES)
        .chain(["raw", "jobs"])
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "want a number from 0.01 to 86400".into())
}

fn main() -> ExitCode {
    let ended = match BenchCli::parse().command {
        BenchCommand::Runtime(options) => runtime::run_runtime_bench(&options),
        BenchCommand::Gateway(options) => gateway::run_gateway_bench(&options),
        BenchCommand::Jobs(options) => jobs::run_jobs_bench(&options),
        BenchCommand::Conformance(options) => conformance::run_conformance(&options),
        BenchCommand::Report(options) => report::write_report(&options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
