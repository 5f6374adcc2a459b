//! Runs other programs; errors contain their output.

use std::path::Path;
use std::process::{Command, Stdio};

use slipway_provision::command;
pub use slipway_provision::command::{command_line, last_lines};

use crate::error::{HarnessError, Result};

/// Runs a program to its end and returns its standard output.
pub fn run_command(program: &mut Command) -> Result<String> {
    Ok(command::run_command(program)?)
}

/// Like [`run_command`], without blocking the runtime.
pub async fn run_async(command: Command) -> Result<String> {
    let mut command = tokio::process::Command::from(command);
    // A cancelled test must not leave running programs.
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|source| start_error(command.as_std(), source))?;
    Ok(command::check_output(command.as_std(), &output)?)
}

/// Runs a program that may fail for a known harmless reason; returns whether it succeeded.
pub fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a program whose output is shown to the user directly.
pub fn run_visible(command: &mut Command) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().map_err(|source| start_error(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(HarnessError::Command {
        command: command_line(command),
        status: status.to_string(),
        output: "(shown above)".into(),
    })
}

/// The last lines of a file, for error messages; never fails.
pub fn file_tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), lines),
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}

fn start_error(command: &Command, source: std::io::Error) -> HarnessError {
    HarnessError::Start { command: command_line(command), source }
}
