//! What every program of Slipway needs as a process.

pub mod metrics;
pub mod telemetry;
