//! `kubectl slipway`: what people do by hand. kubectl runs it when it is on the PATH under the name `kubectl-slipway`.

mod build;
mod check;
mod layout;
mod model;
mod progress;
mod source;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Ships machine-learning models safely.
#[derive(Debug, Parser)]
#[command(name = "kubectl slipway", bin_name = "kubectl slipway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Describe a model by reference rows: what its inputs and outputs look like, and golden requests.
    Baseline(BaselineArgs),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct BaselineArgs {
    #[command(subcommand)]
    command: Option<BaselineCommand>,
    #[command(flatten)]
    make: build::MakeArgs,
}

#[derive(Debug, Subcommand)]
enum BaselineCommand {
    /// Compare rows with a baseline, column by column.
    Check(check::CheckArgs),
}

fn main() -> ExitCode {
    // The client that fetches models by HTTP uses whatever provider the process installs.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Command::Baseline(args) = Cli::parse().command;
    let ended = match args.command {
        Some(BaselineCommand::Check(check)) => check::run(&check),
        None => build::run(&args.make).map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["x", "baseline"]).is_err());
        assert!(Cli::try_parse_from(["x", "baseline", "--model", "m", "--data", "d"]).is_ok());
        assert!(Cli::try_parse_from(["x", "baseline", "check", "--baseline", "b", "--data", "d"]).is_ok());
    }
}
