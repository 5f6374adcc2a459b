//! Models in ONNX Runtime: a file is fetched ([`fetch`]) and loaded ([`session`]); requests wait in
//! a bounded queue ([`pool`]), from which workers run batches ([`batch`]) where rows are known to
//! be independent ([`batching`]).
//!
//! It knows tensors and no protocol: what fails is an [`error::PredictError`] or an
//! [`error::LoadError`].

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
