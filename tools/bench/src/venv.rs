//! External Python programs, each in its own environment.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use slipway_provision::{BuildCache, python};

/// Creates an environment with `requirements` (lines for pip) unless it exists; returns its
/// directory.
pub(crate) fn ensure_venv(
    name: &str,
    python: &str,
    requirements: &[&str],
) -> anyhow::Result<PathBuf> {
    Ok(python::PythonEnvironment { name, python, requirements }
        .ensure_installed(&BuildCache::from_env()?)?)
}

pub(crate) fn run_command(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
