//! Why an arm gave no answer.

use crate::outcome::RequestOutcome;
use crate::refusal::RequestRefusal;

/// Why an arm gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArmFailure {
    /// No pod accepted the request: it did not run.
    Unreachable,
    /// A pod closed the connection: the request may have run.
    Broken,
    /// No answer in time: the request may have run.
    Deadline,
    /// The client disconnected while its body was streamed.
    ClientLeft,
    /// The client's body exceeded the size limit while it was streamed.
    TooLarge,
    /// The client sent its streamed body too slowly to keep its permit.
    TooSlow,
}

impl ArmFailure {
    /// How the arm's request ended.
    pub fn outcome(self) -> RequestOutcome {
        match self {
            Self::Unreachable => RequestOutcome::Unavailable,
            Self::Broken => RequestOutcome::ServerError,
            Self::Deadline => RequestOutcome::Timeout,
            Self::ClientLeft | Self::TooLarge | Self::TooSlow => RequestOutcome::Cancelled,
        }
    }

    /// The refusal that the client receives.
    pub fn refusal(self) -> RequestRefusal {
        match self {
            Self::Unreachable => RequestRefusal::Unreachable,
            Self::Broken => RequestRefusal::Broken,
            Self::Deadline => RequestRefusal::Deadline,
            Self::ClientLeft => RequestRefusal::BadBody,
            Self::TooLarge => RequestRefusal::BodyTooLarge,
            Self::TooSlow => RequestRefusal::BodyTooSlow,
        }
    }
}
