//! What the demo and the end-to-end tests of Slipway share: Slipway installed on a cluster, and a
//! namespace with a model store, a load and ModelDeployments in it.

pub mod demo;
pub mod product;
pub mod world;
