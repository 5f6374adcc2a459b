//! The checks, by what they are about.

mod basics;
mod errors;
mod extensions;
mod grpc;
mod infer;

pub(crate) use self::basics::{Found, run as rest_basics};
pub(crate) use self::errors::run as errors;
pub(crate) use self::extensions::run as extensions;
pub(crate) use self::grpc::run as grpc;
pub(crate) use self::infer::run as infer;
