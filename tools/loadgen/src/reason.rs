//! Why a request failed.

use std::fmt;

/// Why a request failed. Two bytes of detail at most: a record is kept for each of millions of
/// requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureReason {
    /// The target's name was not found.
    Resolve,
    /// Nobody listens, or a Service has no endpoint yet.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// No connection for any other cause.
    Connect,
    /// The connection ended before the answer was whole.
    Closed,
    /// Anything else that is no HTTP answer.
    Transport,
    /// No whole answer within the deadline.
    Timeout,
    /// The token cannot be read.
    Token,
    /// A status other than 200.
    Status(u16),
    /// Status 200 and no right answer.
    Malformed(AnswerDefect),
}

/// What is wrong with an answer of status 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AnswerDefect {
    /// No JSON, or fields missing or of other types.
    Json,
    /// Another id than the request's.
    Id,
    /// Another model's answer.
    Model,
    /// An output's shape does not fit its data, or not the one row that was sent.
    Shape,
    /// No single INT64 `label`.
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
