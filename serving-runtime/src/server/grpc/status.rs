//! Converts errors to gRPC statuses.

use tonic::{Code, Status};

use crate::server::error::ApiError;

pub(super) fn grpc_status(error: &ApiError) -> Status {
    let code = match error {
        ApiError::BadRequest(_) | ApiError::UnsupportedEncoding(_) => Code::InvalidArgument,
        ApiError::NotFound(_) => Code::NotFound,
        ApiError::Forbidden(_) => Code::PermissionDenied,
        ApiError::MethodNotAllowed(_) => Code::Unimplemented,
        // Used by the gRPC libraries for this case, and different from that of a full queue.
        ApiError::TooLarge(_) => Code::OutOfRange,
        ApiError::Unprocessable(_) => Code::FailedPrecondition,
        ApiError::Busy(_) | ApiError::QueueFull(_) => Code::ResourceExhausted,
        ApiError::Conflict(_) => Code::Aborted,
        ApiError::Unavailable(_) => Code::Unavailable,
        ApiError::Deadline(_) => Code::DeadlineExceeded,
        ApiError::Internal(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
