//! Errors of the connection to Prometheus.

/// An argument is invalid, or a file that it refers to cannot be read or parsed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PrometheusArgumentError(pub String);
