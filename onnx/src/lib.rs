//! Model files of ONNX, read without building them in memory: whether the tensors that a model
//! declares are there ([`check`]), its graph without the weights ([`read_model`]), and whether it
//! keeps the rows of a batch apart ([`independence::prove_row_independence`]).
//!
//! Nothing here runs a model. Files are untrusted: depth, texts, lists and the number of nodes are
//! bounded, and nothing panics.

pub mod check;
pub mod error;
pub mod graph;
pub mod independence;
mod parser;
mod wire;

pub use check::{CheckReport, check_model, external_files};
pub use error::OnnxError;
pub use parser::read_model;
