//! `ml.slipway.dev/v1alpha1`.

mod analysis;
mod autoscaling;
mod model;
mod queue;
mod spec;
mod status;
mod strategy;
mod traffic;

pub use analysis::*;
pub use autoscaling::*;
pub use model::*;
pub use queue::*;
pub use spec::*;
pub use status::*;
pub use strategy::*;
pub use traffic::*;
