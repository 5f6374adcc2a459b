//! Builds and runs a real Kubernetes cluster on one Linux machine, for the demo and the end-to-end
//! tests of Slipway.
//!
//! The cluster lives in one network namespace, one private mount namespace and one cgroup, all
//! named after the cluster. Taking it down is therefore removing those three; nothing that belongs
//! to it exists elsewhere, whoever was killed and when.

pub mod cgroup;
pub mod cluster;
pub mod environment;
pub mod error;
pub mod families;
pub mod images;
pub mod layout;
pub mod node;
pub mod process;
pub mod progress;
pub mod shell;
pub mod wait;

pub use cluster::{ClusterHandle, TempNamespace};
pub use error::{HarnessError, Result};
pub use layout::ClusterLayout;
