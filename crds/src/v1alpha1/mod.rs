//! The types of `ml.slipway.dev/v1alpha1`.

mod analysis;
mod autoscaling;
mod cache;
mod model;
mod observe;
mod queue;
mod rollout;
mod server;
mod spec;
mod status;
mod strategy;
mod template;
mod traffic;
pub mod units;

pub use analysis::*;
pub use autoscaling::*;
pub use cache::*;
pub use model::*;
pub use observe::*;
pub use queue::*;
pub use rollout::*;
pub use server::*;
pub use spec::*;
pub use status::*;
pub use strategy::*;
pub use template::*;
pub use traffic::*;
pub use units::Percentage;
