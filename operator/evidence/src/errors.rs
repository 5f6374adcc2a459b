//! What can go wrong with the connection to Prometheus.

/// An argument is wrong, or a file that it names cannot be read or understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PrometheusArgumentError(pub String);

/// An error with its causes.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
