//! The real server with the real ONNX Runtime, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

mod baseline;
mod conformance;
mod errors;
mod feedback;
mod frameworks;
mod fuzz;
mod grpc;
mod grpc_errors;
mod infer;
mod lifecycle;
mod load;
mod matrix;
mod overload;
mod repository;
mod samples;
mod support;
