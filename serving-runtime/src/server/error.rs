//! Errors as an HTTP status and a text; the gRPC status is in `grpc`.

use http::StatusCode;
use slipway_runtime_common::keys::AccessDenied;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_jobs::submit::SubmitError;

/// An error that is sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    /// The request is wrong; the text names the part and the remedy.
    #[error("{0}")]
    BadRequest(String),
    /// The model, version or path is unknown.
    #[error("{0}")]
    NotFound(String),
    /// The resource is restricted, and the client has not proven that it may use it.
    #[error("{0}")]
    Forbidden(String),
    /// The path exists but needs another method, which is named.
    #[error("this path wants {0}")]
    MethodNotAllowed(&'static str),
    /// The body exceeds the limit.
    #[error("{0}")]
    TooLarge(String),
    /// The content encoding is not supported.
    #[error("{0}")]
    UnsupportedEncoding(String),
    /// The answer cannot be expressed in the requested form.
    #[error("{0}")]
    Unprocessable(String),
    /// The queue is full; its length.
    #[error("the queue is full ({0} requests wait); try again later or run more replicas")]
    Busy(usize),
    /// The queue of jobs is full; its length.
    #[error(
        "the queue of jobs is full ({0} jobs are queued or running); try again later or run more workers"
    )]
    QueueFull(u64),
    /// The request contradicts the existing state.
    #[error("{0}")]
    Conflict(String),
    /// The model is not ready (loading, or shutting down).
    #[error("{0}")]
    Unavailable(String),
    /// The deadline passed; the elapsed milliseconds.
    #[error("the request was not answered within its time limit of {0} ms")]
    Deadline(u128),
    /// The model failed.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest(message.into())
    }

    pub(super) const fn status(&self) -> StatusCode {
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

    /// Seconds for `Retry-After`, where a retry makes sense.
    pub(super) const fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Busy(_) | Self::Unavailable(_) => Some(1),
            Self::QueueFull(_) => Some(5),
            _ => None,
        }
    }
}

impl From<PredictError> for ApiError {
    fn from(error: PredictError) -> Self {
        match error {
            PredictError::Invalid(text) => Self::BadRequest(text),
            PredictError::NotFound(text) => Self::NotFound(text),
            PredictError::Unsupported(text) => Self::Unprocessable(text),
            PredictError::Overloaded(waiting) => Self::Busy(waiting),
            PredictError::Unavailable(text) => Self::Unavailable(text),
            PredictError::DeadlineExceeded(millis) => Self::Deadline(millis),
            PredictError::ModelFailed(text) => Self::Internal(text),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(text) => Self::BadRequest(text),
            SubmitError::Conflict(text) => Self::Conflict(text),
            SubmitError::QueueFull(jobs) => Self::QueueFull(jobs),
            SubmitError::Unavailable(text) => Self::Unavailable(text),
        }
    }
}

impl From<AccessDenied> for ApiError {
    fn from(error: AccessDenied) -> Self {
        Self::Forbidden(error.to_string())
    }
}
