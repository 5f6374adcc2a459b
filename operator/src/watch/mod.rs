//! Watches that fill the caches, and the part of the caches that a plan observes.

pub mod context;
pub mod model_events;
pub mod observe;
pub mod size_limit;
pub mod stream;
