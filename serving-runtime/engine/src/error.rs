//! The two kinds of failure: a model that cannot be loaded, and a prediction that cannot be made.

use serde::{Deserialize, Serialize};

/// Why a model could not be loaded. The operator reads the variant's name from the termination
/// message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadErrorReason {
    /// There is no file or object at the URI.
    ModelNotFound,
    /// The content does not have the expected digest.
    DigestMismatch,
    /// The content is not a model that this server can serve.
    InvalidModel,
    /// The engine could not be started, or could not load a model that may be valid.
    LoadFailed,
    /// The content could not be downloaded.
    DownloadFailed,
    /// The baseline is malformed or belongs to another model.
    InvalidBaseline,
    /// The model's answer to a request of its baseline differs from the answer in the baseline.
    GoldenRequestFailed,
}

/// A failure to load.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
#[error("{reason:?}: {message}")]
pub struct LoadError {
    pub reason: LoadErrorReason,
    /// What happened, and the remedy.
    pub message: String,
    /// Whether a retry with the same specification must fail again.
    pub permanent: bool,
}

impl LoadError {
    /// A failure that a retry cannot fix.
    pub fn permanent(reason: LoadErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), permanent: true }
    }

    /// A failure that a retry may fix.
    pub fn transient(reason: LoadErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), permanent: false }
    }
}

/// Why a prediction cannot be made, independent of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// The request is wrong; the text names the part and the remedy.
    #[error("{0}")]
    Invalid(String),
    /// There is no such model, version or feature row.
    #[error("{0}")]
    NotFound(String),
    /// The request is well formed, but the model or the server does not support it.
    #[error("{0}")]
    Unsupported(String),
    /// The queue is full; the value is its length.
    #[error("the queue is full ({0} requests wait); try again later or run more replicas")]
    Overloaded(usize),
    /// The model is not ready, or a dependency of the answer is unavailable for now.
    #[error("{0}")]
    Unavailable(String),
    /// The deadline passed.
    #[error("the request was not answered within its time limit of {0} ms")]
    DeadlineExceeded(u128),
    /// The model or the engine failed.
    #[error("{0}")]
    ModelFailed(String),
}

impl PredictError {
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

impl From<slipway_onnx::OnnxError> for LoadError {
    fn from(error: slipway_onnx::OnnxError) -> Self {
        match error {
            slipway_onnx::OnnxError::Unreadable(text) => {
                Self::transient(LoadErrorReason::LoadFailed, text)
            }
            slipway_onnx::OnnxError::Invalid(text) => {
                Self::permanent(LoadErrorReason::InvalidModel, text)
            }
        }
    }
}
