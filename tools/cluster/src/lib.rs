//! Builds and runs a real Kubernetes cluster on one Linux machine, for the demo and the end-to-end
//! tests of Slipway.
//!
//! The cluster consists of one network namespace, one private mount namespace and one cgroup, all
//! named after the cluster. Removing these three removes the cluster: it has no other parts,
//! whichever processes were killed and when.

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
