//! `kubectl slipway`: commands for users. kubectl runs it when it is on the PATH under the name
//! `kubectl-slipway`.

mod build;
mod check;
mod command;
mod layout;
mod model;
mod progress;
mod restart;
mod source;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use command::TargetArgs;

/// Ships machine-learning models safely.
#[derive(Debug, Parser)]
#[command(name = "kubectl slipway", bin_name = "kubectl slipway", version)]
struct PluginCli {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Describe a model by reference rows: the distributions of its inputs and outputs, and golden
    /// requests.
    Baseline(Box<BaselineArgs>),
    /// End the current pause, or the wait of the current step.
    Promote(PromoteArgs),
    /// Send all traffic back to the stable version.
    Abort(TargetArgs),
    /// Start a withdrawn version again from its first step.
    Retry(TargetArgs),
    /// Hold the rollout at its current step; an abort still works.
    Pause(TargetArgs),
    /// Continue a rollout that was held by `pause`.
    Resume(TargetArgs),
    /// Replace the pods one at a time: after a Secret was rotated, or for a newer image of the
    /// operator.
    Restart(TargetArgs),
}

#[derive(Debug, Args)]
struct PromoteArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Skip all remaining steps and gates; checks of capacity and confirmation still apply.
    #[arg(long)]
    full: bool,
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
    slipway_chassis::tls::install_provider();
    let give = |command, target: &TargetArgs| {
        command::run_command(command, target).map(|()| ExitCode::SUCCESS)
    };
    let ended = match PluginCli::parse().command {
        PluginCommand::Baseline(args) => match args.command {
            Some(BaselineCommand::Check(check)) => check::check_baseline(&check),
            None => build::build_baseline(&args.make).map(|()| ExitCode::SUCCESS),
        },
        PluginCommand::Promote(PromoteArgs { target, full: false }) => {
            give(command::RolloutCommand::Promote, &target)
        }
        PluginCommand::Promote(PromoteArgs { target, full: true }) => {
            give(command::RolloutCommand::PromoteFull, &target)
        }
        PluginCommand::Abort(target) => give(command::RolloutCommand::Abort, &target),
        PluginCommand::Retry(target) => give(command::RolloutCommand::Retry, &target),
        PluginCommand::Pause(target) => give(command::RolloutCommand::Pause, &target),
        PluginCommand::Resume(target) => give(command::RolloutCommand::Resume, &target),
        PluginCommand::Restart(target) => restart::run_restart(&target).map(|()| ExitCode::SUCCESS),
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
        PluginCli::command().debug_assert();
        assert!(PluginCli::try_parse_from(["x", "baseline"]).is_err());
        assert!(
            PluginCli::try_parse_from(["x", "baseline", "--model", "m", "--data", "d"]).is_ok()
        );
        assert!(
            PluginCli::try_parse_from(["x", "baseline", "check", "--baseline", "b", "--data", "d"])
                .is_ok()
        );
        assert!(
            PluginCli::try_parse_from(["x", "promote", "digits", "--full", "-n", "team"]).is_ok()
        );
        assert!(PluginCli::try_parse_from(["x", "restart", "digits", "-n", "team"]).is_ok());
        assert!(PluginCli::try_parse_from(["x", "abort"]).is_err());
    }
}
