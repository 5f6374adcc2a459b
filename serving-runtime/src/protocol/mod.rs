//! The Open Inference Protocol v2: reading inference requests and writing answers, JSON and binary over REST, typed and raw over gRPC.
//!
//! Choices where the protocol leaves room:
//! * Every error is `{"error": "..."}` and names the input and the remedy.
//! * Numbers must be exactly representable in an integer datatype: `5e9` for INT32 is refused, `3.0` is taken as 3.
//! * A NaN or an infinity has no form in JSON. An answer that holds one is refused with 422 when its output was asked for as JSON,
//!   and sent as it is when binary. (422 and not 5xx, because the client's input may be the cause; the metric
//!   `slipway_runtime_nan_outputs_total` counts it either way.)
//! * FP16 exists only in binary form.

mod binary;
mod data;
pub mod grpc;
mod parameters;
mod request;
mod response;
mod select;

pub(crate) use self::binary::{read as read_binary, write as write_binary};
pub use self::request::{InferRequest, Wanted, parse};
pub use self::response::{Body, metadata, write};

/// The header that carries the length of the JSON part.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// Our name for the kind of model, as KServe and MLServer spell it.
pub const PLATFORM: &str = "onnx_onnxv1";
