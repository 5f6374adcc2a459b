//! `slipway-bench`: measures the model server and the gateway of Slipway next to others: same model
//! files, same load, same machine, same run.
//!
//! The compared quantity is CPU time per request (user and system, of the server's whole process
//! tree): on a shared machine it is far more stable than requests per second or percentiles, which
//! are reported together with the load average. Servers run on one core, the load on another;
//! rounds are interleaved.

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

/// Measures the model server and the gateway of Slipway beside others: same model files, same
/// load, same machine, same run.
#[derive(Debug, Parser)]
#[command(version)]
struct BenchCli {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Measure model servers.
    Runtime(BenchOptions),
    /// Measure only the hop through each gateway.
    Gateway(BenchOptions),
    /// Measure the queue of jobs on each broker.
    Jobs(BenchOptions),
    /// Check how well servers conform to the Open Inference Protocol.
    Conformance(BenchOptions),
    /// Write the table and the plots of the results so far.
    Report(BenchOptions),
}

/// Options of all measurements.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchOptions {
    /// Directory of results, models and external programs.
    #[arg(long, default_value = "target/bench")]
    pub(crate) dir: PathBuf,
    /// Directory of the report.
    #[arg(long, default_value = "docs/bench")]
    pub(crate) report: PathBuf,
    /// Measure only these, by name.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(measured_names()))]
    pub(crate) only: Vec<String>,
    /// Use only these models.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(model::NAMES))]
    pub(crate) models: Vec<String>,
    /// Seconds of each measurement, after a fifth of it as warm-up.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Number of interleaved rounds; the report shows the median.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Number of connections of the load.
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

    /// Creates the directory of logs, which is inside that of results.
    pub(crate) fn make_dirs(&self) -> anyhow::Result<()> {
        let logs = self.dir.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))
    }
}

/// Names of everything that is measured: all subcommands share these options, so each accepts the
/// names of the others.
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
