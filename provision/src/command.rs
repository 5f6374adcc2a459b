//! Runs other programs; errors contain their output.

use std::process::{Command, Output, Stdio};

use crate::error::{ProvisionError, Result};

/// How many lines of output an error shows.
const TAIL_LINES: usize = 40;

/// Runs a program to its end and returns its standard output.
pub fn run_command(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output
        .map_err(|source| ProvisionError::Start { command: command_line(command), source })?;
    check_output(command, &output)
}

/// The standard output of a program that has ended; an error if it failed.
pub fn check_output(command: &Command, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let all = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    Err(ProvisionError::Command {
        command: command_line(command),
        status: output.status.to_string(),
        output: last_lines(&all, TAIL_LINES),
    })
}

/// The command line, for messages.
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

pub fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_command_and_output() {
        let error = run_command(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("echo out") && error.contains("out\nerr") && error.contains('3'),
            "{error}"
        );
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 5), "a");
    }
}
