//! Errors, with enough context to act on them.

use std::fmt;
use std::path::PathBuf;

pub type Result<T, E = ProvisionError> = std::result::Result<T, E>;

/// A failure to provide an artifact.
#[derive(Debug)]
pub enum ProvisionError {
    /// A program failed; the output is its tail.
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines of its output.
        output: String,
    },
    /// A program could not be started.
    Start {
        /// The command line.
        command: String,
        source: std::io::Error,
    },
    /// A file operation failed.
    Io {
        /// The operation, as a verb.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// Any other failure, as a text.
    Other(String),
}

impl fmt::Display for ProvisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { command, status, output } => {
                write!(f, "`{command}` failed ({status}):\n{output}")
            }
            Self::Start { command, source } => write!(f, "cannot start `{command}`: {source}"),
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ProvisionError {}

impl ProvisionError {
    /// For `map_err` on file operations.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
