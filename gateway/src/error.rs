//! Why the process could not start or go on.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// A fatal error.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// A port is taken, for example.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// No client for the API server.
    #[error("cannot make a client for the API server")]
    Client(#[from] kube::Error),
    /// No configuration for a client.
    #[error("cannot infer how to reach the API server")]
    Config(#[from] kube::config::InferConfigError),
    /// Signals cannot be handled.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// A task that must not end has ended.
    #[error("a task ended early: {0}")]
    Task(&'static str),
}
