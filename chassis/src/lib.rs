//! What every program of Slipway needs as a process.

#![warn(missing_docs)]

pub mod admin;
pub mod backoff;
mod error_chain;
pub mod metrics;
pub mod signals;
pub mod telemetry;
pub mod tls;

pub use error_chain::error_chain;
