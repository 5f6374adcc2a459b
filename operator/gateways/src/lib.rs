//! State streams from gateway pods: one connection to every ready gateway pod, the newest report of
//! each pod about each ModelDeployment, and a trigger when a report could change a plan.

mod connection;
pub mod report;
mod state;
mod streams;

pub use state::GatewayLookup;
pub use streams::GatewayStreams;
