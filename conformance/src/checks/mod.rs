//! The checks by subject.

mod basics;
mod errors;
mod extensions;
mod grpc;
mod infer;

pub(crate) use self::basics::{ServerMetadata, check_rest_basics};
pub(crate) use self::errors::check_errors;
pub(crate) use self::extensions::check_extensions;
pub(crate) use self::grpc::check_grpc;
pub(crate) use self::infer::check_inference;
