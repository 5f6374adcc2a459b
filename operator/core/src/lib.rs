//! The pure brain of the Slipway operator.
//!
//! [`plan::plan`] is a function of what was observed and of the time that it is given. It knows no client, no clock and no randomness; the same
//! input gives the same bytes out. Everything that it needs to remember is in the status of the ModelDeployment.

pub mod action;
pub mod build;
pub mod check;
pub mod command;
pub mod evidence;
pub mod judge;
pub mod observed;
pub mod plan;
mod report;
pub mod revision;
pub mod sizing;
mod strategy;
pub mod traffic;
pub mod validate;
