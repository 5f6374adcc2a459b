//! The real server with the real ONNX Runtime, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

mod errors;
mod feedback;
mod frameworks;
mod fuzz;
mod infer;
mod jobs;
mod lifecycle;
mod load;
mod overload;
mod redis;
mod support;
