//! Why an arm gave no answer.

use crate::outcome::RequestOutcome;
use crate::refusal::RequestRefusal;

/// Why an arm gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArmFailure {
    /// No pod took the request: it did not run.
    Unreachable,
    /// A pod broke off: it may have run.
    Broken,
    /// No answer in time: it may have run.
    Deadline,
    /// The client broke off while its body passed through.
    ClientLeft,
    /// The client's body passed through until it was larger than is allowed.
    TooLarge,
    /// The client's body passed through, too slowly to keep its place.
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

    /// What the client is told.
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
