//! What operator, gateway and model server agree on: each name and each format once.
//!
//! Labels, annotations and condition reasons are part of the API and live in `slipway-crds`. The
//! description for people is `docs/contracts.md`.

pub mod environment;
pub mod files;
pub mod grpc;
pub mod headers;
pub mod metric_names;
pub mod paths;
pub mod ports;
pub mod state;
pub mod termination;
