//! The program `slipway-conformance`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use slipway_conformance::{ConformanceOptions, run_checks};

/// Checks a server of the Open Inference Protocol v2, of any vendor. Exits with 1 when a required
/// check fails.
#[derive(Debug, Parser)]
#[command(version)]
struct ConformanceCli {
    /// Address of the server's REST API: http://host:port.
    #[arg(long, value_parser = parse_address)]
    url: String,
    /// Address of the server's gRPC API: http://host:port. Without it, gRPC is not checked.
    #[arg(long, value_parser = parse_address)]
    grpc: Option<String>,
    /// A loaded model. It receives requests of ones (true, "1").
    #[arg(long)]
    model: String,
    /// Time limit of each check in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_seconds: u64,
    /// Also write the report to a file: .json or .md. May be given more than once.
    #[arg(long, value_parser = parse_report_path)]
    report: Vec<PathBuf>,
}

fn parse_address(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text)
        .ok()
        .filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.map(|_| text.to_owned()).ok_or_else(|| "want http://host:port".into())
}

fn parse_report_path(name: &str) -> Result<PathBuf, String> {
    let good = name.ends_with(".json") || name.ends_with(".md");
    good.then(|| name.into()).ok_or_else(|| "the name must end in .json or .md".into())
}

fn main() -> ExitCode {
    match check_server(ConformanceCli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn check_server(cli: ConformanceCli) -> anyhow::Result<ExitCode> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let timeout = Duration::from_secs(cli.timeout_seconds);
    let options = ConformanceOptions { url: cli.url, grpc: cli.grpc, model: cli.model, timeout };
    let report = run_checks(&options).await?;
    std::io::stdout()
        .write_all(report.to_table().as_bytes())
        .context("cannot write to standard output")?;
    for path in &cli.report {
        let json = path.extension().is_some_and(|ending| ending == "json");
        let text = if json { serde_json::to_string_pretty(&report)? } else { report.to_markdown() };
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if report.conforms() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
