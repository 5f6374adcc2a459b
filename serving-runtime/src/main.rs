//! `slipway-runtime`: the program. See `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use slipway_chassis::telemetry::{self, ParentTrust};
use slipway_chassis::tls;
use slipway_runtime::config::{RuntimeCli, RuntimeCommand};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // First: help and mistakes are told without anything else happening.
    let command = RuntimeCli::parse().command;
    let filter = EnvFilter::try_from_default_env();
    let wrong = filter
        .as_ref()
        .err()
        .filter(|_| std::env::var_os("RUST_LOG").is_some())
        .map(ToString::to_string);
    // Before traces, which may go by TLS, and for both HTTP clients.
    tls::install_provider();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let _telemetry = telemetry::init_telemetry("slipway-runtime", filter, ParentTrust::Trusted);
    if let Some(error) = wrong {
        tracing::warn!(error, "RUST_LOG is no filter; the log is that of `info`");
    }
    match command {
        RuntimeCommand::Fetch(args) => slipway_runtime::process::run_fetch(*args),
        RuntimeCommand::Serve(args) => slipway_runtime::process::serve_model(*args),
        RuntimeCommand::Vet(args) => slipway_runtime_engine::sandbox::run_vet(&args),
        RuntimeCommand::Worker(args) => slipway_runtime::process::run_worker(*args),
    }
}
