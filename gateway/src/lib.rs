//! The data plane of Slipway: one gateway per namespace splits the traffic of every ModelDeployment
//! there by exact weight.
//!
//! The path of a request: [`server`] accepts it, [`proxy`] reads it whole, [`table`] says which
//! ModelDeployment and which arm, [`endpoint`] which pod, [`send`] carries it there. Around that,
//! [`shield`](proxy::shield) replays what the candidate failed to answer, [`share`] sees to it that
//! no ModelDeployment takes all there is, [`latency`] says by when, [`brake`] takes a failing
//! candidate out, [`metrics`] counts every request exactly once, and [`admin`] tells the operator.
//! Weights and endpoints come from [`watch`] by way of [`convert`]; nothing else in this crate
//! knows Kubernetes.

pub mod admin;
pub mod app;
pub mod args;
pub mod convert;
pub mod error;
pub mod keep_alive;
pub mod proxy;
pub mod resource;
pub mod server;
pub mod state;
pub mod streams;
pub mod watch;
