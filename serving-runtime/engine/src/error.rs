//! The two kinds of failure: a model that cannot be loaded, and a prediction that cannot be made.

use serde::{Deserialize, Serialize};

/// Why a model could not be loaded. The operator reads the name of the variant from the termination
/// message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadErrorReason {
    /// There is nothing at the address.
    ModelNotFound,
    /// The content is not what the digest says.
    DigestMismatch,
    /// The content is not a model that we can serve.
    InvalidModel,
    /// The engine could not be started or could not load a model that may be valid.
    LoadFailed,
    /// The content could not be had.
    DownloadFailed,
    /// The baseline is no baseline, or one of another model.
    InvalidBaseline,
    /// The model answers a request of its baseline otherwise than the baseline says.
    GoldenRequestFailed,
}

/// A failure to load.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
#[error("{reason:?}: {message}")]
pub struct LoadError {
    /// The machine-readable part.
    pub reason: LoadErrorReason,
    /// What happened and what to do about it.
    pub message: String,
    /// Whether trying again with the same specification is pointless.
    pub permanent: bool,
}

impl LoadError {
    /// A failure that a new attempt will not cure.
    pub fn permanent(reason: LoadErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), permanent: true }
    }

    /// A failure that may pass.
    pub fn transient(reason: LoadErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), permanent: false }
    }
}

/// A prediction that cannot be made, in no protocol's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// The request is wrong; the text names the part and the remedy.
    #[error("{0}")]
    Invalid(String),
    /// There is no such model, version or feature row.
    #[error("{0}")]
    NotFound(String),
    /// Well formed, but not what the model or the server can do.
    #[error("{0}")]
    Unsupported(String),
    /// The queue is full.
    #[error("the queue is full ({0} requests wait); try again later or run more replicas")]
    Overloaded(usize),
    /// The model is not ready, or something that the answer needs is away for now.
    #[error("{0}")]
    Unavailable(String),
    /// The deadline passed.
    #[error("the request was not answered within its time limit of {0} ms")]
    DeadlineExceeded(u128),
    /// The model failed, or what runs it.
    #[error("{0}")]
    ModelFailed(String),
}

impl PredictError {
    /// A request that is wrong.
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
