//! Errors, with enough context to act on them.

use std::path::PathBuf;
use std::time::Duration;

pub type Result<T, E = HarnessError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A program failed; the output is its tail.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines of its output.
        output: String,
    },
    /// A program could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// The command line.
        command: String,
        source: std::io::Error,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A component of the cluster ended or did not become ready.
    #[error("{component} {what}; the last lines of its log:\n{log}")]
    Component {
        component: String,
        /// What happened to it.
        what: String,
        /// The tail of its log.
        log: String,
    },
    /// A condition did not hold in time.
    #[error("gave up after {} s waiting for {what}: {last}\n{state}", after.as_secs())]
    Timeout {
        /// A description of the condition.
        what: String,
        /// The time limit.
        after: Duration,
        /// The message of the last check.
        last: String,
        /// The state of the cluster at that time; may be empty.
        state: String,
    },
    /// The name of the cluster is invalid.
    #[error(
        "`{0}` is no cluster name: use 1 to 12 lower-case letters, digits and '-', beginning with a letter"
    )]
    Name(String),
    /// The IP families are unknown.
    #[error("IP_FAMILIES is `{0}`: it may be ipv4, dual or dual-ipv6")]
    Families(String),
    /// The cluster of that name is not up.
    #[error("cluster `{0}` is not up; run `slipway-e2e up --name {0}`")]
    NotUp(String),
    /// A Service has no address in the cluster.
    #[error("Service {name} in namespace {namespace} has no cluster address")]
    NoAddress { namespace: String, name: String },
    /// The request needs the local cluster, but the environment names a foreign context.
    #[error("not available on a foreign cluster (CONTEXT is set): {0}")]
    Foreign(&'static str),
    /// The Kubernetes client failed. Without `source`, because the text contains the causes
    /// already.
    #[error("{}", in_words(.0))]
    Kube(kube::Error),
    /// The kubeconfig of a local cluster could not be used.
    #[error("the kubeconfig of the cluster cannot be used; `slipway-e2e up` writes it again: {}", in_words(.0))]
    Kubeconfig(kube::config::KubeconfigError),
    /// The context in `CONTEXT` could not be used.
    #[error("CONTEXT={name} cannot be used; `kubectl config get-contexts` lists the contexts that there are: {}", in_words(.why))]
    Context { name: String, why: kube::config::KubeconfigError },
    /// Root rights are required.
    #[error(
        "`slipway-e2e {0}` makes or enters network namespaces, mounts and cgroups: run it as root, with sudo for example"
    )]
    NotRoot(&'static str),
    /// A certificate could not be made.
    #[error("certificate")]
    Certificate(#[from] rcgen::Error),
    /// JSON could not be parsed.
    #[error("json: {what}")]
    Json {
        /// What was parsed.
        what: String,
        source: serde_json::Error,
    },
    /// Any other failure, as a text.
    #[error("{0}")]
    Other(String),
}

impl From<kube::Error> for HarnessError {
    fn from(error: kube::Error) -> Self {
        Self::Kube(error)
    }
}

impl From<kube::config::KubeconfigError> for HarnessError {
    fn from(error: kube::config::KubeconfigError) -> Self {
        Self::Kubeconfig(error)
    }
}

/// An error with all its causes, as text on one line where possible. kube's own text contains a
/// dump of the answer's fields, and libraries that include the cause in their text would repeat it.
pub fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let (words, cause) = match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => {
                (format!("the API server answers {}: {}", status.code, status.message), None)
            }
            Some(kube::Error::Service(_)) => {
                ("the API server cannot be reached".into(), error.source())
            }
            _ => (error.to_string(), error.source()),
        };
        let words = words.trim_end();
        if !text.ends_with(words) {
            text += if text.is_empty() { "" } else { ": " };
            text += words;
        }
        next = cause;
    }
    text
}

impl From<slipway_provision::ProvisionError> for HarnessError {
    fn from(error: slipway_provision::ProvisionError) -> Self {
        use slipway_provision::ProvisionError;
        match error {
            ProvisionError::Command { command, status, output } => {
                Self::Command { command, status, output }
            }
            ProvisionError::Start { command, source } => Self::Start { command, source },
            ProvisionError::Io { action, path, source } => Self::Io { action, path, source },
            ProvisionError::Other(text) => Self::Other(text),
        }
    }
}

impl HarnessError {
    /// For `map_err` on file operations.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_once_and_in_words() {
        let status =
            kube::core::Status::failure("no pods for you", "Forbidden").with_code(403).boxed();
        let answer =
            anyhow::Error::from(HarnessError::from(kube::Error::Api(status))).context("looking");
        assert_eq!(
            in_words(answer.as_ref()),
            "looking: the API server answers 403: no pods for you"
        );

        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let service =
            anyhow::Error::from(kube::Error::Service(refused().into())).context("looking");
        assert_eq!(
            in_words(service.as_ref()),
            "looking: the API server cannot be reached: connection refused"
        );

        let read = kube::config::KubeconfigError::ReadConfig(refused(), "/k".into());
        let context = HarnessError::Context { name: "c".into(), why: read };
        assert_eq!(in_words(&context).matches("connection refused").count(), 1);
        assert_eq!(
            in_words(&HarnessError::io("read", "/k")(refused())),
            "cannot read /k: connection refused"
        );
    }
}
