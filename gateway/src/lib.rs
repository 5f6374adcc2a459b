//! The data plane of Slipway: one gateway per namespace splits the traffic of every ModelDeployment
//! there by exact weight.
//!
//! The path of a request: [`server`] accepts it, [`proxy`] reads it completely,
//! [`select`](slipway_gateway_routing::select) chooses the ModelDeployment,
//! [`model`](slipway_gateway_routing::model) the arm,
//! [`endpoint`](slipway_gateway_upstream::endpoint) the pod, and
//! [`send`](slipway_gateway_upstream::send) sends it. Besides, [`shield`](proxy::shield) replays
//! what the candidate failed to answer, the policies ([`slipway_gateway_policy`]) limit the cost of
//! replays and the use of shared resources, every request is counted exactly once
//! ([`metrics`](slipway_gateway_routing::metrics)), and [`admin`] reports to the operator. Weights
//! and endpoints come from the API server through [`slipway_gateway_control`]; no other part uses
//! Kubernetes.

pub mod admin;
pub mod app;
pub mod args;
pub mod error;
pub mod keep_alive;
pub mod proxy;
pub mod server;
