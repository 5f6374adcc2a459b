//! The model server of Slipway: ONNX models by the Open Inference Protocol v2.
//!
//! One process serves one revision of one model. A request passes from [`server`] (REST and gRPC)
//! through `slipway_runtime_protocol` (conversion to tensors) and `slipway_runtime_predict`
//! (prediction, metrics and samples) to `slipway_runtime_engine` (ONNX Runtime) and back.
//! `slipway_runtime_jobs` handles predictions that wait in a queue for a worker, which is another
//! subcommand of this program ([`process`]).

pub mod config;
pub mod process;
pub mod server;
