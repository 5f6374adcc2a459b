//! The client side of Prometheus: authentication, the queries for each ModelDeployment, and the
//! conversion of answers to readings of gates. `slipway-core` decides what a reading means.

mod args;
mod connection;
mod credentials;
mod errors;
mod poller;
pub mod promql;
mod query_metrics;
mod reader;

pub use args::{PromQlGates, PrometheusArgs};
pub use connection::PrometheusConnection;
pub use errors::PrometheusArgumentError;
pub use poller::EvidencePoller;
pub use query_metrics::{QueryMetrics, QueryResultLabel};
