//! Other people's Python programs, each in an environment of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Makes an environment with `requirements` (lines for pip) unless it is there; returns its directory.
pub(crate) fn ensure(dir: &Path, name: &str, python: &str, requirements: &[&str]) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(dir.join(format!("venv-{name}")))?;
    let stamp = path.join("requirements");
    let wanted = requirements.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(path);
    }
    eprintln!("installing {name}: {}", requirements.join(" "));
    if path.exists() {
        std::fs::remove_dir_all(&path)?;
    }
    run(Command::new(python).args(["-m", "venv"]).arg(&path))?;
    run(Command::new(path.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(requirements))?;
    std::fs::write(stamp, wanted)?;
    Ok(path)
}

pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
