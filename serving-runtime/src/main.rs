//! The program `slipway-runtime`. See `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use slipway_chassis::telemetry::{
    self, LogFilter, LogFormat, LogOptions, LogOutput, ParentTrust, TelemetryOptions,
};
use slipway_chassis::tls;
use slipway_runtime::config::{RuntimeCli, RuntimeCommand};

fn main() -> ExitCode {
    // Parsed first: help and errors in the arguments must not cause any other output.
    let command = RuntimeCli::parse().command;
    // Before traces, which may go by TLS, and for both HTTP clients.
    tls::install_provider();
    let _telemetry = telemetry::init_telemetry(TelemetryOptions {
        service: "slipway-runtime",
        logs: LogOptions {
            filter: LogFilter::from_environment(),
            format: LogFormat::Json,
            output: LogOutput::Stdout,
        },
        parents: ParentTrust::Trusted,
    });
    match command {
        RuntimeCommand::Fetch(args) => slipway_runtime::process::run_fetch(*args),
        RuntimeCommand::Serve(args) => slipway_runtime::process::serve_model(*args),
        #[cfg(feature = "model-repository")]
        RuntimeCommand::Vet(args) => slipway_runtime_repository::sandbox::run_vet(&args),
        RuntimeCommand::Worker(args) => slipway_runtime::process::run_worker(*args),
    }
}
