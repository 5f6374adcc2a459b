//! Errors that end the process.

use slipway_evidence::PrometheusArgumentError;

/// An error that ends the process.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is no usable configuration of the Kubernetes client.
    #[error("no access to a cluster: {0}")]
    Config(String),
    /// The client cannot be built.
    #[error("cannot build the client: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The admin server cannot listen.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// An argument is invalid.
    #[error("{0}")]
    Argument(String),
    /// The lease was lost: another process may lead now, so this one must end.
    #[error("lost the lease: {0}")]
    LeaseLost(String),
    /// The controller ended without a request to stop.
    #[error("the controller ended by itself")]
    ControllerEnded,
}

impl From<PrometheusArgumentError> for OperatorError {
    fn from(error: PrometheusArgumentError) -> Self {
        Self::Argument(error.to_string())
    }
}
