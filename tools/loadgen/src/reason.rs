//! Why a request failed.

use std::fmt;

/// Why a request failed. At most two bytes of detail: a record is kept for each of millions of
/// requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureReason {
    /// The target's name was not found.
    Resolve,
    /// The connection was refused: there is no listener, or a Service has no endpoint yet.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// No connection for another reason.
    Connect,
    /// The connection ended before the answer was complete.
    Closed,
    /// Any other failure without an HTTP answer.
    Transport,
    /// No complete answer within the deadline.
    Timeout,
    /// The token cannot be read.
    Token,
    /// A status other than 200.
    Status(u16),
    /// Status 200 with an invalid answer.
    Malformed(AnswerDefect),
}

/// The defect of an answer with status 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AnswerDefect {
    /// No JSON, or fields that are missing or have other types.
    Json,
    /// Another id than that of the request.
    Id,
    /// The answer of another model.
    Model,
    /// The shape of an output does not fit its data, or not the one row that was sent.
    Shape,
    /// Not exactly one INT64 `label`.
    Label,
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve => f.write_str("resolve"),
            Self::Refused => f.write_str("connect_refused"),
            Self::ConnectTimeout => f.write_str("connect_timeout"),
            Self::Connect => f.write_str("connect"),
            Self::Closed => f.write_str("closed"),
            Self::Transport => f.write_str("transport"),
            Self::Timeout => f.write_str("timeout"),
            Self::Token => f.write_str("token"),
            Self::Status(code) => write!(f, "http_{code}"),
            Self::Malformed(defect) => {
                write!(f, "malformed_{}", format!("{defect:?}").to_lowercase())
            }
        }
    }
}
