//! The program behind `make`: the demo, the tests in tiers, and the cache that all checkouts of a
//! user share.

mod check;
mod checkout;
mod cluster;
mod cluster_source;
mod demo;
mod estimate;
mod features;
mod group;
mod maintenance;
mod prerequisites;
mod report;
mod setup;
mod step_runner;
mod test;
mod test_counts;
mod time_budget;

use std::process::ExitCode;

use checkout::Checkout;

const HELP: &str = "\
What `make` runs. `make help` lists the targets.

Usage: xtask <COMMAND>

Commands:
  demo                  Roll models out and back on a real cluster under load
  test [--all]          All tiers of tests; --all leaves nothing out
  setup                 Install the packages that the others need, and offer the git hook
  check                 Tier 0: format, lints, dependencies, tests of the workspace, charts, workflows
  e2e [NAME...]         Tier 1: charts, apiserver, and every promise on a real cluster, or those promises
  e2e --group <GROUP>   One group of promises
  apiserver             The operator against a real apiserver
  charts                Lint and render the charts
  workflows             Check the workflows in .github by actionlint
  up | images           Bring the cluster up; build the images
  prefetch              Get everything that comes from elsewhere into the cache
  clean-cache           Remove the cache
  restore-crates        Bring compiled crates of the registry from the cache

Environment:
  SLIPWAY_CACHE         Folder of the cache, default slipway in the user's cache directory
  CONTEXT               A context of your kubeconfig to use instead of a cluster of ours
  CLUSTER               `kind` or `build`: how the demo gets its cluster; default kind where docker and kind are
  KEEP=1                Leave the cluster up
  RATE                  Requests a second of the demo, default 200
  HOOKS=1               Have setup set the git hook without asking
  TEST_THREADS          Promises side by side, default 4
  TEST_BUDGET_MINUTES   Leave groups out whose tools are missing and take longer than what is left of this
  TEST_BEGIN_MINUTES    Begin nothing after this minute; what has not begun counts as failed

Options:
  -h, --help            Print this
  -V, --version         Print the version
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run_command(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(CommandError::Usage(message)) => {
            eprintln!(
                "error: {message}\n\nUsage: xtask <COMMAND>; xtask --help lists the commands"
            );
            ExitCode::from(2)
        }
        Err(CommandError::Other(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Why no work was done.
#[derive(Debug)]
enum CommandError {
    /// The arguments are invalid.
    Usage(String),
    Other(String),
}

impl From<slipway_provision::ProvisionError> for CommandError {
    fn from(error: slipway_provision::ProvisionError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<String> for CommandError {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

/// Runs a command; returns whether it succeeded.
fn run_command(words: &[&str]) -> Result<bool, CommandError> {
    match words {
        [] => return Err(CommandError::Usage("no command".into())),
        _ if words.iter().any(|word| ["-h", "--help", "help"].contains(word)) => {
            print!("{HELP}");
            return Ok(true);
        }
        ["-V" | "--version"] => {
            println!("xtask {}", env!("CARGO_PKG_VERSION"));
            return Ok(true);
        }
        _ => {}
    }
    if let Some(option) =
        words.iter().find(|word| word.starts_with('-') && !["--all", "--group"].contains(word))
    {
        return Err(CommandError::Usage(format!("unknown option `{option}`")));
    }
    let checkout = Checkout::open()?;
    match words {
        ["demo"] => demo::run_demo(&checkout),
        ["test"] => test::run_tiers(&checkout, false),
        ["test", "--all"] => test::run_tiers(&checkout, true),
        ["setup"] => setup::run_setup(&checkout),
        ["check"] => check::run_check(&checkout),
        ["e2e", "--group", name] => {
            test::run_group(&checkout, group::find_group(name).map_err(CommandError::Usage)?)
        }
        ["e2e", names @ ..] if !names.iter().any(|name| name.starts_with('-')) => {
            test::run_promises(&checkout, names)
        }
        ["apiserver"] => Ok(cluster::test_apiserver(&checkout)?),
        ["charts"] => Ok(check::test_charts(&checkout)?),
        ["workflows"] => Ok(check::lint_workflows(&checkout)?),
        ["up"] => Ok(cluster::bring_up_cluster(&checkout)?),
        ["images"] => Ok(cluster::build_images(&checkout)?),
        ["prefetch"] => maintenance::prefetch_all(&checkout),
        ["clean-cache"] => maintenance::clean_cache(&checkout),
        ["restore-crates"] => {
            checkout.restore_crates();
            Ok(true)
        }
        _ => Err(CommandError::Usage(format!("unknown command `{}`", words.join(" ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told() {
        let usage = |words: &[&str]| match run_command(words) {
            Err(CommandError::Usage(message)) => message,
            other => panic!("{words:?}: {other:?}"),
        };
        assert!(usage(&["test", "--everything"]).contains("--everything"));
        assert!(usage(&["tests"]).contains("tests"));
        assert!(usage(&["e2e", "--group", "nonesuch"]).contains("clients"));
        usage(&[]);
    }

    #[test]
    fn help_names_every_command() {
        let source = include_str!("main.rs");
        let commands =
            source.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
        for command in commands.filter(|word| !word.starts_with('-')) {
            assert!(HELP.contains(command), "{command}");
        }
        assert!(run_command(&["test", "--help"]).unwrap());
    }
}
