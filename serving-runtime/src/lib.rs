//! The model server of Slipway: ONNX models by the Open Inference Protocol v2.
//!
//! One process serves one revision of one model. A request goes from [`server`] (REST and gRPC)
//! through `slipway_runtime_protocol` (to tensors) and `slipway_runtime_predict` (the way to a
//! prediction, and what is observed of it) to `slipway_runtime_engine` (ONNX Runtime) and back.
//! `slipway_runtime_jobs` are predictions that wait in a queue for a worker, another life of this
//! program ([`process`]).

pub mod config;
pub mod process;
pub mod server;
