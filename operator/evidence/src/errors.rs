//! What can go wrong with the connection to Prometheus.

/// An argument is wrong, or a file that it names cannot be read or understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PrometheusArgumentError(pub String);
