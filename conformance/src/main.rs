//! `slipway-conformance`: the program.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use slipway_conformance::{Options, run};

/// Checks a server of the Open Inference Protocol v2. Ends with 1 when a required check fails.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where the server speaks REST: http://host:port.
    #[arg(long)]
    url: String,
    /// Where it speaks gRPC: http://host:port. Without it, gRPC is not checked.
    #[arg(long)]
    grpc: Option<String>,
    /// A model that is loaded. It is sent ones (true, "1").
    #[arg(long)]
    model: String,
    /// Seconds for each check.
    #[arg(long, default_value_t = 30)]
    timeout_seconds: u64,
    /// Also write the report to a file: .json or .md. May be given more than once.
    #[arg(long)]
    report: Vec<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    // An error means that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let timeout = Duration::from_secs(cli.timeout_seconds);
    let options = Options { url: cli.url, grpc: cli.grpc, model: cli.model, timeout };
    let report = run(&options).await?;
    print!("{}", report.table());
    for path in &cli.report {
        let text = match path.extension().and_then(|e| e.to_str()) {
            Some("json") => serde_json::to_string_pretty(&report)?,
            Some("md") => report.markdown(),
            _ => anyhow::bail!("--report {}: the name must end in .json or .md", path.display()),
        };
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if report.conforms() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
