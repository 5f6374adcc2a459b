//! The operator's process: arguments, log, signals.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use slipway_chassis::signals::ShutdownSignal;
use slipway_operator::process::args::{LogFormat, OperatorCli, OperatorCommand, RunArgs};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

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

#[tokio::main]
async fn run_process(args: RunArgs) -> ExitCode {
    let filter = EnvFilter::try_from_default_env();
    let wrong = filter
        .as_ref()
        .err()
        .filter(|_| std::env::var_os("RUST_LOG").is_some())
        .map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    if let Some(error) = wrong {
        tracing::warn!(error, "RUST_LOG is no filter; the log is that of `info`");
    }
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
