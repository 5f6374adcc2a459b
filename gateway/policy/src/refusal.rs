//! Why the gateway answers a request itself.

use http::StatusCode;
use thiserror::Error;

use crate::outcome::RequestOutcome;

/// Answers of the gateway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestRefusal {
    /// Neither the host nor the request identifies a ModelDeployment.
    #[error(
        "no ModelDeployment declares this host and the request names no model: ask for /v2/models/<name>, or declare the host in spec.traffic.hosts"
    )]
    UndeclaredHost,
    /// No ModelDeployment holds the model name.
    #[error("no ModelDeployment of this namespace serves a model of this name")]
    UnknownModel,
    /// A gRPC message whose model name cannot be read.
    #[error(
        "no ModelDeployment declares this host and the message does not begin with the name of a model, or is compressed: declare the host in spec.traffic.hosts"
    )]
    UnreadableName,
    /// No weights.
    #[error("no revision is known yet")]
    NoRevision,
    /// The path is available only at the port `private`.
    #[error(
        "ask for this at the port `private` (8081) of the Service, with `Authorization: Bearer` and the token of the Secret slipway-keys of this namespace"
    )]
    Private,
    /// A request to the port `private` without the token.
    #[error(
        "this port is for those who show the token of the Secret slipway-keys of this namespace: `Authorization: Bearer <token>`"
    )]
    Unauthorized,
    /// A request to the port `private` while the gateway has no token.
    #[error(
        "this gateway has no token yet: the operator makes the Secret slipway-keys in this namespace"
    )]
    NoToken,
    /// CONNECT and similar methods.
    #[error("this method is not supported")]
    Method,
    /// Too many concurrent requests.
    #[error("too many requests at one time")]
    Overloaded,
    /// The body is too large.
    #[error("the body is larger than is allowed")]
    BodyTooLarge,
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The body arrived too slowly to keep its permit.
    #[error("the body arrived too slowly while other clients waited: send it again")]
    BodyTooSlow,
    /// The body was truncated.
    #[error("the body could not be read")]
    BadBody,
    /// No pod could be reached.
    #[error("no pod of the model could be reached")]
    Unreachable,
    /// A pod closed the connection.
    #[error("the model server closed the connection")]
    Broken,
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
}

impl RequestRefusal {
    /// The HTTP status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::UndeclaredHost | Self::UnknownModel | Self::UnreadableName => {
                StatusCode::NOT_FOUND
            }
            Self::Private => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout | Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BadBody => StatusCode::BAD_REQUEST,
            Self::Overloaded | Self::Unreachable | Self::NoRevision | Self::NoToken => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Broken => StatusCode::BAD_GATEWAY,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The gRPC status of the answer.
    pub fn grpc_status(self) -> &'static str {
        match self {
            Self::UndeclaredHost | Self::UnreadableName | Self::Method => "12",
            Self::UnknownModel => "5",
            Self::Private => "7",
            Self::Unauthorized => "16",
            Self::BodyTooLarge => "8",
            Self::BadBody => "3",
            Self::BodyTimeout | Self::Deadline => "4",
            Self::Overloaded
            | Self::BodyTooSlow
            | Self::Unreachable
            | Self::NoRevision
            | Self::NoToken
            | Self::Broken => "14",
        }
    }

    /// The outcome for the client.
    pub fn outcome(self) -> RequestOutcome {
        match self {
            Self::UndeclaredHost
            | Self::UnknownModel
            | Self::UnreadableName
            | Self::Private
            | Self::Unauthorized
            | Self::Method
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::BodyTooSlow => RequestOutcome::ClientError,
            // A truncated body cannot be distinguished from a client that disconnected.
            Self::BadBody => RequestOutcome::Cancelled,
            Self::Overloaded | Self::Unreachable | Self::NoRevision | Self::NoToken => {
                RequestOutcome::Unavailable
            }
            Self::Broken => RequestOutcome::ServerError,
            Self::Deadline => RequestOutcome::Timeout,
        }
    }
}
