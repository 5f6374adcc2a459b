//! One reconcile: observe, plan, apply, publish; the controller that runs it, the watches that
//! trigger it, and what it remembers.

pub mod backoff;
pub mod context;
pub mod controller;
mod driver;
pub mod error;
mod execute;
pub mod expectations;
mod holder;
mod publish;
pub mod refusals;
pub mod status_debounce;
mod unreadable;
mod watches;
