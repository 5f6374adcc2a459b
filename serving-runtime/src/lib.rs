//! The model server of Slipway: ONNX models by the Open Inference Protocol v2.
//!
//! One process serves one revision of one model. A request goes from `server` (HTTP) through
//! `protocol` (JSON or binary to tensors) into `pool` (a bounded queue, batches formed by `batch`)
//! to an `engine` (ONNX Runtime) and back; `prediction` and `metrics` keep the evidence that a
//! rollout is judged by. `jobs` are predictions that wait in a queue for a worker, another process
//! of this program.

pub mod batch;
pub mod batching;
pub mod cache;
pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod fetch;
pub mod jobs;
pub mod keys;
pub mod load;
mod memory;
pub mod metrics;
pub mod models;
pub mod observe;
pub mod pool;
pub mod prediction;
pub mod predictor;
pub mod prewarm;
pub mod process;
pub mod protocol;
pub mod repository;
pub mod samples;
pub mod sandbox;
pub mod seal;
pub mod server;
pub mod stats;
pub mod tensor;
pub mod trace;
