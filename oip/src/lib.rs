//! The gRPC messages, clients and servers of the Open Inference Protocol (package `inference`) and
//! of health checking (`grpc.health.v1`), generated from `proto/`, where the documentation of each
//! message is.

pub mod codec;

/// The Open Inference Protocol.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod inference {
    tonic::include_proto!("inference");
}

/// Health checking.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
