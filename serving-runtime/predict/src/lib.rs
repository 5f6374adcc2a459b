//! The models of a process ([`models`]), from their files ([`load`]) to predictions
//! ([`predictor`]): what REST, gRPC and jobs share. A server may have a [`repository`] of further
//! ones.
//!
//! [`observe`] counts traffic in the bins of the baseline, [`samples`] writes samples, and
//! [`metrics`] are the evidence by which the operator judges a revision. None of them may fail a
//! request.

pub mod load;
pub mod metrics;
pub mod models;
pub mod observe;
pub mod prediction;
pub mod predictor;
pub mod prewarm;
pub mod repository;
pub mod samples;
