//! The client side of Prometheus: how the operator logs in there, which queries it asks for whom,
//! and the readings of gates that it makes of the answers. What a reading means is decided by
//! `slipway-core`.

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
