//! The two kinds of failure: a model that cannot be loaded, and a request that cannot be answered.

use http::StatusCode;
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

/// A failure to load, as it goes into the termination message.
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

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request is wrong; the text names the part and the remedy.
    #[error("{0}")]
    BadRequest(String),
    /// Unknown model, version or path.
    #[error("{0}")]
    NotFound(String),
    /// Not for everybody, and who asks has not shown that it is for them.
    #[error("{0}")]
    Forbidden(String),
    /// The path exists and wants another method.
    #[error("this path wants {0}")]
    MethodNotAllowed(&'static str),
    /// The body is over the limit.
    #[error("{0}")]
    TooLarge(String),
    /// The content encoding is none that we read.
    #[error("{0}")]
    UnsupportedEncoding(String),
    /// The answer cannot be expressed as asked.
    #[error("{0}")]
    Unprocessable(String),
    /// The queue is full.
    #[error("the queue is full ({0} requests wait); try again later or run more replicas")]
    Busy(usize),
    /// The queue of jobs is full.
    #[error(
        "the queue of jobs is full ({0} jobs are queued or running); try again later or run more workers"
    )]
    QueueFull(u64),
    /// What is asked for contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// The model is not ready (loading, or shutting down).
    #[error("{0}")]
    Unavailable(String),
    /// The deadline passed.
    #[error("the request was not answered within its time limit of {0} ms")]
    Deadline(u128),
    /// The model failed.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// A 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest(message.into())
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy(_) | Self::QueueFull(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Seconds for `Retry-After`, where trying again makes sense.
    pub const fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Busy(_) | Self::Unavailable(_) => Some(1),
            Self::QueueFull(_) => Some(5),
            _ => None,
        }
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

/// An error with its causes: reqwest's own text leaves out the cause, which is what helps.
pub(crate) fn error_chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
