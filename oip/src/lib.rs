//! The gRPC messages, clients and servers of the Open Inference Protocol (package `inference`) and
//! of health checking (`grpc.health.v1`), generated from `proto/`, which documents each message.

#![warn(missing_docs)]

pub mod codec;

/// The package `inference` of the Open Inference Protocol.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod inference {
    tonic::include_proto!("inference");
}

/// The package `grpc.health.v1` of gRPC health checking.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
