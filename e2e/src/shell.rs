//! Running other programs, with their output in the error when they fail.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// How many lines of output an error shows.
const TAIL_LINES: usize = 40;

/// Runs a program to its end and returns its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|source| start_error(command, source))?;
    check(command, output)
}

/// Like [`run`], without blocking the runtime.
pub async fn run_async(command: Command) -> Result<String> {
    let mut command = tokio::process::Command::from(command);
    // A test that is cancelled must not leave programs behind.
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|source| start_error(command.as_std(), source))?;
    check(command.as_std(), output)
}

/// Runs a program that may fail for a known harmless reason; says whether it succeeded.
pub fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a program whose output the user wants to see as it comes.
pub fn run_visible(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().map_err(|source| start_error(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { command: line(command), status: status.to_string(), output: "(shown above)".into() })
}

/// The last lines of a file, for error messages; never fails.
pub fn tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), lines),
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn check(command: &Command, output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let all = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Command {
        command: line(command),
        status: output.status.to_string(),
        output: last_lines(&all, TAIL_LINES),
    })
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { command: line(command), source }
}

fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_command_and_output() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("echo out") && error.contains("out\nerr") && error.contains('3'), "{error}");
    }

    #[test]
    fn tail_keeps_the_end() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 5), "a");
    }
}
