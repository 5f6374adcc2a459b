//! The real server with the real ONNX Runtime, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

mod baseline;
mod broker;
mod cache;
mod command_line;
mod conformance;
mod crowds;
mod errors;
mod features;
mod frameworks;
mod fuzz;
mod grpc;
mod grpc_errors;
mod infer;
mod jobs;
mod lifecycle;
mod load;
mod matrix;
mod nats;
mod one_model;
mod overload;
mod predictions;
mod random_graphs;
mod redis;
mod redis_aof;
mod repository;
mod samples;
mod support;
