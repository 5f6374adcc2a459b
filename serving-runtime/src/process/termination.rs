//! The termination message of a container, which the operator reads: why it could not start, or
//! what it has fetched.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use slipway_contracts::termination::FailureReport;
use slipway_runtime_engine::error::LoadError;

/// Largest length of the message; Kubernetes keeps 4096 bytes.
const MAX_MESSAGE: usize = 2000;

/// Writes why a container cannot start.
pub(super) fn write_error(path: &Path, error: &LoadError) {
    let message = if error.message.len() > MAX_MESSAGE {
        error.message.chars().take(MAX_MESSAGE / 4).collect()
    } else {
        error.message.clone()
    };
    // The name of the variant.
    let reason = format!("{:?}", error.reason);
    write_message(path, &FailureReport { reason, message, permanent: error.permanent });
}

/// Writes one line of JSON. A failure is only logged: outside of a pod the file does not exist.
pub(super) fn write_message(path: &Path, message: &impl Serialize) {
    let line = serde_json::to_string(message).unwrap_or_default() + "\n";
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .and_then(|mut f| f.write_all(line.as_bytes()));
    if let Err(e) = written {
        tracing::warn!(path = %path.display(), error = %e, "cannot write the termination message");
    }
}

#[cfg(test)]
mod tests {
    use slipway_runtime_engine::error::LoadErrorReason;

    use super::*;

    #[test]
    fn one_line_of_json_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write_error(
            &path,
            &LoadError::permanent(LoadErrorReason::DigestMismatch, "é".repeat(9000)),
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() < 4096 && text.ends_with('\n') && text.lines().count() == 1);
        let report: FailureReport = serde_json::from_str(&text).unwrap();
        assert_eq!((report.reason.as_str(), report.permanent), ("DigestMismatch", true));
    }
}
