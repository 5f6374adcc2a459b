//! The termination message of a container of the model server: one line of JSON, which the kubelet
//! puts into the status of the pod and the operator reads there.
//!
//! As with the state stream, readers ignore fields that they do not know, and need no other fields
//! than they use.

use serde::{Deserialize, Serialize};

/// What `fetch` leaves when it has ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReport {
    /// `sha256:<hex>` of the model.
    pub digest: String,
    /// Size of all its files.
    #[serde(default)]
    pub bytes: u64,
    /// Number of its files.
    #[serde(default)]
    pub files: usize,
}

/// What `fetch`, `serve` and `worker` leave when they have failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// Kind of the failure, for programs: see docs/contracts.md.
    pub reason: String,
    /// What happened and what to do about it.
    #[serde(default)]
    pub message: String,
    /// Whether another attempt with the same spec is pointless.
    pub permanent: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_message_is_written_as_it_is_read() {
        let fetched = json!({"digest": "sha256:00", "bytes": 7, "files": 2});
        let report: FetchReport = serde_json::from_value(fetched.clone()).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), fetched);
        let failed = json!({"reason": "DigestMismatch", "message": "m", "permanent": true});
        let report: FailureReport = serde_json::from_value(failed.clone()).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), failed);
    }

    #[test]
    fn what_a_reader_does_not_use_may_be_missing_or_new() {
        let fetched = json!({"digest": "sha256:00", "later": 1});
        assert!(serde_json::from_value::<FetchReport>(fetched).is_ok());
        let read = |value: Value| serde_json::from_value::<FailureReport>(value).is_ok();
        assert!(read(json!({"reason": "Later", "permanent": false, "later": 1})));
        assert!(!read(json!({"level": "ERROR", "message": "a line of a log"})));
    }
}
