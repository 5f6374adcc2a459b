//! Errors of a reconcile, each with a static category for metrics.

use crate::apply::WriteError;

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The caches will never be complete: the operator is shutting down.
    #[error("caches are gone")]
    CachesGone,
}

impl ReconcileError {
    pub fn category(&self) -> &'static str {
        match self {
            Self::Write(error) => error.fault.category(),
            Self::CachesGone => "caches",
        }
    }
}
