//! Why a reconcile ended without success, each with a static category for metrics.

use crate::apply::WriteError;

/// Why a reconcile ended without success.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The caches will not come: the operator is ending.
    #[error("caches are gone")]
    CachesGone,
}

impl ReconcileError {
    /// Static label for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Write(error) => error.fault.category(),
            Self::CachesGone => "caches",
        }
    }
}
