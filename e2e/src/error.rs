//! What can go wrong, with enough context to act on it.

use std::path::PathBuf;
use std::time::Duration;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the harness.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program ended with a failure; the output is its tail.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command line as typed.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines of its output.
        output: String,
    },
    /// A program could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// The command line as typed.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A part of the cluster ended or did not become ready.
    #[error("{component} {what}; the last lines of its log:\n{log}")]
    Component {
        /// Name of the component.
        component: String,
        /// What happened to it.
        what: String,
        /// The tail of its log.
        log: String,
    },
    /// A condition did not hold in time.
    #[error("gave up after {} s waiting for {what}: {last}\n{state}", after.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// What the last look at it said.
        last: String,
        /// Dump of the cluster at that time; may be empty.
        state: String,
    },
    /// A cluster name that cannot be used.
    #[error("`{0}` is no cluster name: use 1 to 12 lower-case letters, digits and '-', beginning with a letter")]
    Name(String),
    /// The cluster of that name is not up.
    #[error("cluster `{0}` is not up; run `slipway-e2e up --name {0}`")]
    NotUp(String),
    /// A Service that has no address in the cluster.
    #[error("Service {name} in namespace {namespace} has no cluster address")]
    NoAddress {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// The request needs the local cluster, but the environment names a foreign context.
    #[error("not available on a foreign cluster (CONTEXT is set): {0}")]
    Foreign(&'static str),
    /// The Kubernetes client failed.
    #[error("kubernetes client")]
    Kube(#[from] kube::Error),
    /// A kubeconfig could not be used.
    #[error("kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// A certificate could not be made.
    #[error("certificate")]
    Certificate(#[from] rcgen::Error),
    /// JSON that does not parse.
    #[error("json: {what}")]
    Json {
        /// What was parsed.
        what: String,
        /// Why it failed.
        source: serde_json::Error,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// For `map_err` on file operations.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
