//! What can go wrong with a write, each with a static category for metrics.

use std::time::Duration;

use slipway_core::refusal::{RefusalCause, RefusalReport};

/// A write that did not happen.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {name}: {fault}")]
pub struct WriteError {
    /// What was tried, in one word.
    pub verb: &'static str,
    /// Kind of the object.
    pub kind: &'static str,
    /// Name of the object.
    pub name: String,
    /// Why it did not happen.
    #[source]
    pub fault: WriteFault,
}

impl WriteError {
    /// As the plan and the status have it.
    pub fn to_report(&self) -> RefusalReport {
        RefusalReport { cause: self.fault.refusal_cause(), message: self.to_string() }
    }
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteFault {
    /// An object of that name is there and belongs to somebody else; it is never overwritten.
    #[error(
        "an object of this name exists and is not managed by this ModelDeployment ({0}); delete or rename it"
    )]
    Foreign(String),
    /// The object changed or was replaced under our feet: look again.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The object is gone: look again.
    #[error("not found: {0}")]
    NotFound(String),
    /// The operator lacks a right.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The API server or an admission webhook refuses the content.
    #[error("refused: {0}")]
    Refused(String),
    /// The API server asks for patience.
    #[error("throttled: {0}")]
    Throttled(String),
    /// A disruption budget lets a pod not be evicted for now.
    #[error("held by a disruption budget: {0}")]
    Budget(String),
    /// The API server failed.
    #[error("server error: {0}")]
    Server(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or an answer that cannot be read.
    #[error(transparent)]
    Transport(Box<kube::Error>),
}

impl WriteFault {
    /// Static label for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Foreign(_) => "foreign",
            Self::Conflict(_) => "conflict",
            Self::NotFound(_) => "not_found",
            Self::Forbidden(_) => "forbidden",
            Self::Refused(_) => "refused",
            Self::Throttled(_) => "throttled",
            Self::Budget(_) => "budget",
            Self::Server(_) => "server",
            Self::Timeout(_) => "timeout",
            Self::Transport(_) => "transport",
        }
    }

    /// Why the write counts as refused.
    pub fn refusal_cause(&self) -> RefusalCause {
        match self {
            Self::Budget(_) => RefusalCause::Budget,
            _ => RefusalCause::Fault,
        }
    }

    /// Whether a person has to act: trying again alone does not help. Such faults are shown in the
    /// status at once.
    pub fn needs_user_action(&self) -> bool {
        matches!(self, Self::Foreign(_) | Self::Forbidden(_) | Self::Refused(_))
    }
}

impl From<kube::Error> for WriteFault {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else {
            return Self::Transport(Box::new(error));
        };
        let message = status.message.clone();
        // A server-side apply with the UID of an object that was replaced answers 422
        // "metadata.uid: field is immutable".
        let replaced = status
            .details
            .as_ref()
            .is_some_and(|d| d.causes.iter().any(|c| c.field == "metadata.uid"));
        match status.code {
            404 => Self::NotFound(message),
            409 => Self::Conflict(message),
            422 if replaced => Self::Conflict(message),
            403 => Self::Forbidden(message),
            429 => Self::Throttled(message),
            400..=499 => Self::Refused(message),
            _ => Self::Server(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(Status::failure("no", reason).with_code(code).boxed())
    }

    #[test]
    fn answers_map_to_faults() {
        for (code, reason, category) in [
            (404, "NotFound", "not_found"),
            (409, "Conflict", "conflict"),
            (403, "Forbidden", "forbidden"),
            (422, "Invalid", "refused"),
            (400, "BadRequest", "refused"),
            (429, "TooManyRequests", "throttled"),
            (500, "InternalError", "server"),
            (503, "ServiceUnavailable", "server"),
        ] {
            assert_eq!(WriteFault::from(api(code, reason)).category(), category, "{code}");
        }
    }

    #[test]
    fn a_replaced_object_is_a_conflict() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "code": 422, "reason": "Invalid", "details": {"causes": [{"field": "metadata.uid"}]}
        }))
        .unwrap();
        assert_eq!(WriteFault::from(kube::Error::Api(status.boxed())).category(), "conflict");
    }
}
