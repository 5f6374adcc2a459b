//! Why the process could not start or had to end.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum GatewayError {
    /// For example because the port is in use.
    #[error("cannot listen on {addr}")]
    Listen {
        /// Address of the port.
        addr: SocketAddr,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The client for the API server cannot be built.
    #[error("cannot make a client for the API server")]
    Client(#[from] kube::Error),
    /// There is no client configuration.
    #[error("cannot infer how to reach the API server")]
    Config(#[from] kube::config::InferConfigError),
    /// Signal handlers cannot be installed.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// A task that must not end has ended.
    #[error("a task ended early: {0}")]
    Task(&'static str),
}
