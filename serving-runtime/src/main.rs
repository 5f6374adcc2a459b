//! The program.

use std::process::ExitCode;

use clap::Parser as _;
use slipway_runtime::config::{Cli, Command};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    match Cli::parse().command {
        Command::Serve(args) => slipway_runtime::serve(*args),
        Command::Worker(args) => slipway_runtime::jobs::work(*args),
    }
}
