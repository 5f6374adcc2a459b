//! Why the process ends with a failure.

use slipway_evidence::PrometheusArgumentError;

/// Why the process ends with a failure.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// No usable configuration of the Kubernetes client.
    #[error("no access to a cluster: {0}")]
    Config(String),
    /// The client cannot be built.
    #[error("cannot build the client: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The admin server cannot listen.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// An argument makes no sense.
    #[error("{0}")]
    Argument(String),
    /// The lease was lost: another process may lead now, so this one must end.
    #[error("lost the lease: {0}")]
    LeaseLost(String),
    /// The controller ended although nobody asked it to.
    #[error("the controller ended by itself")]
    ControllerEnded,
}

impl From<PrometheusArgumentError> for OperatorError {
    fn from(error: PrometheusArgumentError) -> Self {
        Self::Argument(error.to_string())
    }
}
