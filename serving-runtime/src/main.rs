//! The program.

use std::process::ExitCode;

use clap::Parser as _;
use slipway_runtime::config::{Cli, Command};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Traces may go by TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _telemetry = slipway_telemetry::init("slipway-runtime", filter);
    match Cli::parse().command {
        Command::Serve(args) => slipway_runtime::serve(*args),
        Command::Vet(args) => slipway_runtime::vet::run(&args),
        Command::Worker(args) => slipway_runtime::jobs::work(*args),
    }
}
