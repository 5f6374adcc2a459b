//! One reconcile: observe, plan, apply, publish; the controller that runs it, the watches that
//! trigger it, and its in-memory state.

pub mod context;
pub mod controller;
mod driver;
pub mod error;
mod execute;
mod holder;
pub mod memory;
mod publish;
mod unreadable;
mod watches;
