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
pub mod affinity;
pub mod app;
pub mod args;
pub mod brake;
pub mod budget;
pub mod buffer;
pub mod calls;
pub mod config;
pub mod context;
pub mod convert;
pub mod download;
pub mod endpoint;
pub mod error;
pub mod failure;
pub mod feedback;
pub mod grpc;
pub mod keep_alive;
pub mod keys;
pub mod latency;
pub mod message;
pub mod metrics;
pub mod model;
pub mod outcome;
pub mod pool;
pub mod proxy;
pub mod refusal;
pub mod resource;
pub mod select;
pub mod send;
pub mod server;
pub mod settings;
pub mod share;
pub mod split;
pub mod state;
pub mod streams;
pub mod table;
pub mod upload;
pub mod uploads;
pub mod watch;
mod weights;
