//! The Open Inference Protocol v2: parses inference requests and writes answers, JSON and binary
//! over REST, typed and raw over gRPC.
//!
//! Choices where the protocol leaves room:
//! * Every error is `{"error": "..."}` and names the input and the remedy.
//! * Numbers must be exactly representable in an integer datatype: `5e9` for INT32 is rejected,
//!   `3.0` is accepted as 3.
//! * A missing value of a floating-point input is `null`, or the bare `NaN` that Python writes; the
//!   model receives a NaN.
//! * A NaN or an infinity has no form in JSON. A JSON answer has `null` in its place, and the
//!   output's parameter `non_finite_elements` contains their number; a binary answer contains the
//!   value itself. The metric `slipway_runtime_nan_outputs_total` counts the output either way.
//! * A dimension may be 0 where the model leaves it open. A model that rejects such an input does
//!   not count as a failure of the server (422).
//! * FP16 exists only in binary form.

mod binary;
mod data;
pub mod grpc;
mod json;
mod metadata;
mod parameters;
mod request;
mod response;
mod select;

pub use self::binary::{decode_binary, encode_binary};
pub use self::json::without_nan;
pub use self::metadata::{ModelDescription, metadata_json, metadata_message};
pub use self::request::{InferRequest, RequestedOutput, parse_request};
pub use self::response::{ResponseBody, write_response};

/// The header with the length of the JSON part.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// The header (or gRPC parameter) with the number of outputs that hold a NaN; absent when there are
/// none. When a candidate's answer has it, the gateway sends the request to stable as well.
pub const NAN_OUTPUTS: &str = slipway_contracts::headers::NAN_OUTPUTS;

/// The platform name of ONNX models, as KServe and MLServer spell it.
pub const PLATFORM: &str = "onnx_onnxv1";
