//! The operator's process: arguments, log, signals.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use slipway_chassis::signals::ShutdownSignal;
use slipway_chassis::telemetry::{
    self, LogFilter, LogOptions, LogOutput, ParentTrust, TelemetryOptions,
};
use slipway_chassis::tls;
use slipway_operator::process::args::{OperatorCli, OperatorCommand, RunArgs};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let cli = OperatorCli::parse();
    match cli.command {
        Some(OperatorCommand::Crd) => print_crds(),
        Some(OperatorCommand::Run(args)) => run_process(*args),
        None => run_process(cli.run),
    }
}

fn print_crds() -> ExitCode {
    let print = || -> Result<(), Box<dyn std::error::Error>> {
        for crd in slipway_crds::all_crds() {
            writeln!(std::io::stdout(), "---\n{}", slipway_crds::to_yaml(&crd)?)?;
        }
        Ok(())
    };
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot print the CustomResourceDefinitions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_process(args: RunArgs) -> ExitCode {
    // First, because traces may go by TLS; for kube and reqwest, too.
    tls::install_provider();
    let _telemetry = telemetry::init_telemetry(TelemetryOptions {
        service: "slipway-operator",
        logs: LogOptions {
            filter: LogFilter::from_environment(),
            format: args.log_format.into(),
            output: LogOutput::Stderr,
        },
        parents: ParentTrust::Trusted,
    });
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run_until_signal(args)),
        Err(error) => {
            tracing::error!(%error, "cannot start threads");
            ExitCode::FAILURE
        }
    }
}

async fn run_until_signal(args: RunArgs) -> ExitCode {
    let stop = CancellationToken::new();
    let mut signals = match ShutdownSignal::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return ExitCode::FAILURE;
        }
    };
    tokio::spawn({
        let stop = stop.clone();
        async move {
            signals.recv().await;
            tracing::info!("asked to end");
            stop.cancel();
        }
    });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    match slipway_operator::process::run::run_operator(args, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ending");
            ExitCode::FAILURE
        }
    }
}
