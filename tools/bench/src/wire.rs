//! Inputs of requests and their encodings.

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct InputRow {
    pub(crate) input: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Vec<f32>,
}

/// The encoding of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireEncoding {
    /// REST, JSON.
    Json,
    /// REST, the binary tensor extension.
    Binary,
    /// gRPC with raw contents.
    Grpc,
}

impl WireEncoding {
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::Binary, Self::Grpc];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Binary => "binary",
            Self::Grpc => "grpc",
        }
    }
}
