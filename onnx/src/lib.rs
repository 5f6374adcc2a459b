//! ONNX model files, read without building them in memory: whether the data of a model's tensors
//! exists ([`check`]), its graph without the weights ([`read_model`]), and whether it treats the
//! rows of a batch independently ([`independence::prove_row_independence`]).
//!
//! The crate never runs a model. Files are untrusted: depth, texts, lists and the number of nodes
//! are bounded, and no input causes a panic.

pub mod check;
pub mod error;
pub mod graph;
pub mod independence;
mod parser;
mod wire;

pub use check::{CheckReport, check_model, external_files};
pub use error::OnnxError;
pub use parser::read_model;
