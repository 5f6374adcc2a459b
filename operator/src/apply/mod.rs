//! Writes to the API server: server-side apply of whole objects, the other actions of a plan, the
//! status, and events.

pub mod actions;
pub mod applier;
pub mod error;
pub mod events;
pub mod expectation;
mod hand_over;
pub mod locks;
mod overrides;
mod replicas;
pub mod request;
mod server_side_apply;
pub mod status;

pub use applier::{ActionApplier, ApplyOutcome, ModelIdentity};
pub use error::{WriteError, WriteFault};
pub use request::with_timeout;
