//! What the operator remembers of each ModelDeployment between its reconciles. Nothing of it is
//! needed after a restart.
//!
//! Memories that other crates and modules use are theirs; the context of reconciles
//! ([`crate::reconcile::context`]) has them all, and drops them together.

pub mod backoff;
mod disturbances;
mod expectations;
mod holder;
mod object;
pub mod refusals;
mod status_debounce;

pub use disturbances::DisturbanceLog;
pub use object::ObjectMemories;
