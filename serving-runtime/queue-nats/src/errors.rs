//! Converts errors of NATS to errors of queues.

use slipway_runtime_queue::queue::QueueError;

pub(crate) fn unexpected_error(e: impl std::fmt::Display) -> QueueError {
    QueueError::Unexpected(e.to_string())
}

pub(crate) fn contention_error<T>() -> Result<T, QueueError> {
    Err(QueueError::Unavailable("others were always faster".into()))
}

pub(crate) fn unavailable_error(e: impl std::fmt::Display) -> QueueError {
    QueueError::Unavailable(e.to_string())
}
