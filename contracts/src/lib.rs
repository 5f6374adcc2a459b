//! The interfaces between operator, gateway and model server: each name and each format is defined
//! once.
//!
//! Labels, annotations and condition reasons are part of the API and live in `slipway-crds`.
//! `docs/contracts.md` describes the interfaces.

#![warn(missing_docs)]

pub mod environment;
pub mod files;
pub mod grpc;
pub mod headers;
pub mod metric_names;
pub mod paths;
pub mod ports;
pub mod state;
pub mod termination;
