//! How a request ended, and why it reached no arm.

/// How one request to an arm, or one request of a client, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Status below 400.
    Success,
    /// Status 4xx.
    ClientError,
    /// The candidate answered 4xx to a request that stable answered successfully: its contract
    /// differs, or it fails and blames the client.
    ContractError,
    /// Status 5xx, a broken connection, or a truncated body.
    ServerError,
    /// No complete answer in time: the deadline passed, or the client disconnected after longer
    /// than stable's 99th percentile.
    Timeout,
    /// The try time-out passed: the candidate was abandoned for stable's answer, or an arm answered
    /// later than that.
    TryTimeout,
    /// No connection, or rejected for lack of capacity (429).
    Unavailable,
    /// The client disconnected, or its deadline passed, before stable would have answered.
    Cancelled,
}

impl RequestOutcome {
    /// All outcomes, in the order of their handles.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::ClientError,
        Self::ContractError,
        Self::ServerError,
        Self::Timeout,
        Self::TryTimeout,
        Self::Unavailable,
        Self::Cancelled,
    ];

    /// As a label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientError => "client_error",
            Self::ContractError => "contract_error",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::TryTimeout => "try_timeout",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the arm is to blame.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::ContractError
                | Self::ServerError
                | Self::Timeout
                | Self::TryTimeout
                | Self::Unavailable
        )
    }
}

/// Why a client's request reached no arm, or was kept from the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// Too many concurrent requests.
    Overloaded,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body exceeds the size limit.
    BodyTooLarge,
    /// The client broke the connection or sent an invalid request.
    BadRequest,
    /// The client disconnected while it sent its body.
    ClientLeft,
    /// No weights are known.
    NoRevision,
}

impl RejectReason {
    /// All reasons, in the order of their handles.
    pub const ALL: [Self; 6] = [
        Self::Overloaded,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::BadRequest,
        Self::ClientLeft,
        Self::NoRevision,
    ];

    /// As a label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::BadRequest => "bad_request",
            Self::ClientLeft => "client_left",
            Self::NoRevision => "no_revision",
        }
    }
}
