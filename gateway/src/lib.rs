//! The data plane of Slipway: one gateway per namespace splits the traffic of every ModelDeployment
//! there by exact weight.
//!
//! The path of a request: [`server`] accepts it, [`proxy`] reads it whole,
//! [`select`](slipway_gateway_routing::select) says which ModelDeployment and
//! [`model`](slipway_gateway_routing::model) which arm,
//! [`endpoint`](slipway_gateway_upstream::endpoint) which pod,
//! [`send`](slipway_gateway_upstream::send) carries it there. Around that,
//! [`shield`](proxy::shield) replays what the candidate failed to answer, the policies
//! ([`slipway_gateway_policy`]) bound what it may cost and take, every request is counted exactly
//! once ([`metrics`](slipway_gateway_routing::metrics)), and [`admin`] tells the operator. Weights
//! and endpoints come from the API server by [`slipway_gateway_control`]; nothing else knows
//! Kubernetes.

pub mod admin;
pub mod app;
pub mod args;
pub mod error;
pub mod keep_alive;
pub mod proxy;
pub mod server;
