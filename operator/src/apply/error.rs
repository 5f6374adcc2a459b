//! Errors of writes to the API server, each with a static category for metrics.

use std::time::Duration;

use slipway_core::refusal::{RefusalCause, RefusalReport};

/// A failed write.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {name}: {fault}")]
pub struct WriteError {
    /// The attempted operation, as one word.
    pub verb: &'static str,
    pub kind: &'static str,
    pub name: String,
    #[source]
    pub fault: WriteFault,
}

impl WriteError {
    /// As the plan sees it and the status shows it.
    pub fn to_report(&self) -> RefusalReport {
        RefusalReport { cause: self.fault.refusal_cause(), message: self.to_string() }
    }
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteFault {
    /// An object of this name exists and belongs to another owner; it is never overwritten.
    #[error(
        "an object of this name exists and is not managed by this ModelDeployment ({0}); delete or rename it"
    )]
    Foreign(String),
    /// The object was changed or replaced concurrently: it must be read again.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The object does not exist any more: it must be observed again.
    #[error("not found: {0}")]
    NotFound(String),
    /// The operator lacks a permission.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The API server or an admission webhook rejects the content.
    #[error("refused: {0}")]
    Refused(String),
    /// The API server limits the request rate.
    #[error("throttled: {0}")]
    Throttled(String),
    /// A disruption budget lets a pod not be evicted for now.
    #[error("held by a disruption budget: {0}")]
    Budget(String),
    /// The API server failed.
    #[error("server error: {0}")]
    Server(String),
    /// No answer within the time limit.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed, or the answer cannot be parsed.
    #[error(transparent)]
    Transport(Box<kube::Error>),
}

impl WriteFault {
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
        // The API server answers 422 "metadata.uid: field is immutable" to a server-side apply with
        // the UID of an object that was replaced.
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
