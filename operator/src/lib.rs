//! The I/O shell of the Slipway operator: watch, observe, plan, apply, status. It decides nothing
//! about rollouts; that is [`slipway_core::plan`]'s.

pub mod apply;
pub mod gateways;
pub mod metrics;
pub mod namespaces;
pub mod process;
pub mod reconcile;
pub mod watch;
