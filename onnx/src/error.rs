//! Why a model file is rejected.

use std::fmt;

/// Why a model file is rejected.
#[derive(Debug)]
pub enum OnnxError {
    /// The file cannot be read now; a retry may succeed.
    Unreadable(String),
    /// The file is no model, or an incomplete one.
    Invalid(String),
}

impl fmt::Display for OnnxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(text) | Self::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OnnxError {}

/// A fault inside a file.
#[derive(Debug)]
pub(crate) enum ModelFault {
    /// The bytes are not a protobuf.
    File(String),
    /// The bytes are a model that cannot be served.
    Model(String),
}

impl From<std::io::Error> for ModelFault {
    fn from(error: std::io::Error) -> Self {
        Self::File(error.to_string())
    }
}

impl From<ModelFault> for OnnxError {
    fn from(fault: ModelFault) -> Self {
        match fault {
            ModelFault::File(text) => Self::Invalid(format!(
                "not a model: the file is no ONNX protobuf, or a part of one ({text})"
            )),
            ModelFault::Model(text) => Self::Invalid(text),
        }
    }
}
