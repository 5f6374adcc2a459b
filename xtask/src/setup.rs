//! `make setup`: installs the packages that `make check` and other targets need, and the git hook
//! that checks commit messages.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use slipway_provision::packages;

use crate::CommandError;
use crate::checkout::Checkout;
use crate::estimate::DurationEstimates;
use crate::prerequisites::{self, PackageUse};
use crate::step_runner::StepRunner;
use crate::time_budget::TimeBudget;

/// If the script does not exist, for instance in an older commit, messages are not checked.
const HOOK: &str = "\
#!/bin/sh
# Set by `make setup`; remove this file to be rid of it.
[ ! -x scripts/commit-msg ] || exec scripts/commit-msg \"$1\"
";

/// Installs what is missing, and offers to install the hook.
pub(crate) fn run_setup(checkout: &Checkout) -> Result<bool, CommandError> {
    let needed = PackageUse::Cluster;
    let missing = prerequisites::missing_packages(needed);
    missing.iter().for_each(|missing| println!("Missing: {}", missing.description));
    let steps = vec![prerequisites::package_step(&missing)];
    let mut work =
        StepRunner::new(TimeBudget::from_env()?, DurationEstimates::read(&checkout.cache), steps);
    let installed = prerequisites::install_packages(&mut work, needed);
    if !packages::is_in_path("/usr/bin/go") {
        println!("Go is missing, which programs of other projects are built by: see go.dev/dl");
    }
    offer_hook(checkout)?;
    Ok(installed)
}

/// The inputs of the decision about the hook.
#[derive(Debug, Clone, Copy)]
struct HookSituation<'a> {
    /// The variable `HOOKS`: `1` installs the hook without a question, another value does not
    /// install it.
    wanted: Option<&'a str>,
    /// The content of an existing hook.
    present: Option<&'a str>,
    /// Whether a user can answer questions.
    on_terminal: bool,
}

/// What to do about the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HookDecision {
    /// It is installed already.
    Present,
    /// The user has another hook, which is kept.
    Foreign,
    Set,
    Ask,
    Leave,
}

impl HookSituation<'_> {
    fn decide(self) -> HookDecision {
        match (self.present, self.wanted) {
            (Some(HOOK), _) => HookDecision::Present,
            (Some(_), _) => HookDecision::Foreign,
            (None, Some("1")) => HookDecision::Set,
            (None, Some(_)) => HookDecision::Leave,
            (None, None) if self.on_terminal => HookDecision::Ask,
            (None, None) => HookDecision::Leave,
        }
    }
}

fn offer_hook(checkout: &Checkout) -> Result<(), CommandError> {
    let Some(path) = hook_path(checkout) else {
        println!("This is no checkout of git: no hook");
        return Ok(());
    };
    let wanted = std::env::var("HOOKS").ok().filter(|wanted| !wanted.is_empty());
    let present = fs::read_to_string(&path).ok();
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let situation =
        HookSituation { wanted: wanted.as_deref(), present: present.as_deref(), on_terminal };
    match situation.decide() {
        HookDecision::Present => println!("The hook for messages of commits is set"),
        HookDecision::Foreign => println!("{} is your own and stays", path.display()),
        HookDecision::Set => write_hook(&path)?,
        HookDecision::Ask if is_confirmed()? => write_hook(&path)?,
        HookDecision::Ask => {}
        HookDecision::Leave => {
            println!("`HOOKS=1 make setup` sets a hook that looks at the messages of commits");
        }
    }
    Ok(())
}

/// All worktrees of a repository share their hooks.
fn hook_path(checkout: &Checkout) -> Option<PathBuf> {
    let mut command = checkout.command("git", &["rev-parse", "--git-path", "hooks/commit-msg"]);
    let path = slipway_provision::command::run_command(&mut command).ok()?;
    Some(checkout.root.join(path.trim()))
}

fn is_confirmed() -> Result<bool, String> {
    print!("Set a hook of git that looks at the messages of commits (scripts/commit-msg)? [y/N] ");
    let mut answer = String::new();
    std::io::stdout()
        .flush()
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer))
        .map_err(|error| format!("cannot ask: {error}"))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

fn write_hook(path: &Path) -> Result<(), String> {
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, HOOK)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    write().map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    println!("set {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: HookSituation<'_> =
        HookSituation { wanted: None, present: None, on_terminal: false };

    #[test]
    fn nothing_is_set_without_consent() {
        assert_eq!(ALONE.decide(), HookDecision::Leave);
        assert_eq!(HookSituation { on_terminal: true, ..ALONE }.decide(), HookDecision::Ask);
        assert_eq!(HookSituation { wanted: Some("1"), ..ALONE }.decide(), HookDecision::Set);
        let refused = HookSituation { wanted: Some("0"), on_terminal: true, ..ALONE };
        assert_eq!(refused.decide(), HookDecision::Leave);
    }

    #[test]
    fn a_hook_that_is_there_stays() {
        let wanted = HookSituation { wanted: Some("1"), on_terminal: true, ..ALONE };
        let with = |present| HookSituation { present: Some(present), ..wanted }.decide();
        assert_eq!(with(HOOK), HookDecision::Present);
        assert_eq!(with("#!/bin/sh\nexit 0\n"), HookDecision::Foreign);
    }
}
