//! The Open Inference Protocol v2: reading inference requests and writing answers, JSON and binary
//! over REST, typed and raw over gRPC.
//!
//! Choices where the protocol leaves room:
//! * Every error is `{"error": "..."}` and names the input and the remedy.
//! * Numbers must be exactly representable in an integer datatype: `5e9` for INT32 is refused,
//!   `3.0` is taken as 3.
//! * A missing value of a floating input is `null`, or the bare `NaN` that Python writes; the model
//!   sees a NaN.
//! * A NaN or an infinity has no form in JSON. An answer in JSON has `null` in its place, and the
//!   output's parameter `non_finite_elements` says how many there are; in binary it is sent as it
//!   is. The metric `slipway_runtime_nan_outputs_total` counts the output either way.
//! * A dimension may be 0 where the model leaves it open. A model that does not take that is no
//!   failure of the server (422).
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

/// The header that carries the length of the JSON part.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// The header, or the parameter of gRPC, with the number of outputs that hold a NaN; absent when
/// there are none. The gateway asks stable about such an answer of a candidate.
pub const NAN_OUTPUTS: &str = slipway_contracts::headers::NAN_OUTPUTS;

/// Our name for the kind of model, as KServe and MLServer spell it.
pub const PLATFORM: &str = "onnx_onnxv1";
