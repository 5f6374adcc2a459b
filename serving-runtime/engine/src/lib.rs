//! Models in ONNX Runtime: a file is fetched ([`fetch`]) and loaded ([`session`]). Requests wait in
//! a bounded queue ([`pool`]), from which workers run batches ([`batch`]) where rows are proven to
//! be independent ([`batching`]).
//!
//! The crate works on tensors and is independent of protocols: failures are an
//! [`error::PredictError`] or an [`error::LoadError`].

pub mod batch;
pub mod batching;
pub mod error;
pub mod fetch;
pub mod memory;
pub mod pool;
pub mod session;
pub mod signature;
pub mod stats;
pub mod tensor;
