//! What the operator remembers of each ModelDeployment between its reconciles. Nothing of it is
//! needed after a restart.

pub mod backoff;
mod expectations;
mod holder;
mod object;
pub mod refusals;
mod status_debounce;

pub use object::ObjectMemories;
