//! Shared code of the demo and the end-to-end tests of Slipway: Slipway installed on a cluster, and
//! a namespace with a model store, a load and ModelDeployments.

pub mod demo;
pub mod product;
pub mod world;
