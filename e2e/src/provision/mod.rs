//! Getting the programs a cluster is made of.

pub mod packages;
pub mod toolchain;
