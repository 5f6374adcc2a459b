//! The termination messages of the model server's containers: one line of JSON.

use serde::{Deserialize, Serialize};

/// Longest message in bytes that Kubernetes keeps.
pub const MAX_BYTES: usize = 4096;

/// What the init container `fetch` leaves when it has a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReport {
    /// `sha256:<hex>` over all files.
    pub digest: String,
    /// Size of all files in bytes.
    pub bytes: u64,
    /// Number of files.
    pub files: u64,
}

/// What a container leaves when it cannot start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// A word for machines, for example `DigestMismatch`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Whether another try would end the same way.
    #[serde(default)]
    pub permanent: bool,
}
