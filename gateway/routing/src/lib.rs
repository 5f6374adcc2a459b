//! The route table: which ModelDeployment a request is for ([`select`]), and which arm of it
//! ([`model`]). The [`table`] is changed one ModelDeployment at a time, and keeps the state that
//! outlives a change. The [`context`] contains what all requests share: the table, [`settings`],
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
