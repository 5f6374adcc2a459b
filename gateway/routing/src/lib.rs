//! The route table: which ModelDeployment a request is for ([`select`]), and which arm of it
//! ([`model`]). The [`table`] is changed by one ModelDeployment at a time, and remembers what
//! outlives a change. What all requests share is in the [`context`]: the table, [`settings`],
//! [`keys`] of the namespace, and [`metrics`].

pub mod changes;
pub mod context;
pub mod keys;
pub mod metrics;
pub mod model;
pub mod select;
pub mod settings;
pub mod shares;
pub mod table;
mod weights;
