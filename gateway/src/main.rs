//! The gateway's process; the logic is in the library.

use std::process::ExitCode;

use clap::Parser;
use slipway_chassis::telemetry::{
    self, LogFilter, LogFormat, LogOptions, LogOutput, ParentTrust, TelemetryOptions,
};
use slipway_chassis::tls;
use slipway_gateway::app;
use slipway_gateway::args::GatewayArgs;

fn main() -> ExitCode {
    let args = GatewayArgs::parse();
    // Named, because a process with two providers in it would otherwise refuse to choose; first,
    // because traces may go by TLS.
    let installed = tls::install_provider();
    let _telemetry = telemetry::init_telemetry(TelemetryOptions {
        service: "slipway-gateway",
        logs: LogOptions {
            filter: LogFilter::parse(&args.log, "--log (SLIPWAY_LOG)"),
            format: LogFormat::Json,
            output: LogOutput::Stdout,
        },
        parents: ParentTrust::from_environment(),
    });
    if !installed {
        tracing::warn!("a TLS provider was installed already");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        builder.worker_threads(threads.max(1));
    }
    let ended =
        builder.enable_all().build().map(|runtime| runtime.block_on(app::run_gateway(args)));
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => report_failure(&error),
        Err(error) => report_failure(&error),
    }
}

fn report_failure(error: &dyn std::error::Error) -> ExitCode {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    tracing::error!(%error, cause, "the gateway ends");
    ExitCode::FAILURE
}
