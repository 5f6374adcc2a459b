//! Watches that feed the caches, and what a plan observes of them.

pub mod context;
pub mod model_events;
pub mod observe;
pub mod size_limit;
pub mod stream;
