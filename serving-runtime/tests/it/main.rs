//! The real server with the real ONNX Runtime, over HTTP.

mod errors;
mod feedback;
mod fuzz;
mod infer;
mod lifecycle;
mod load;
mod overload;
mod support;
