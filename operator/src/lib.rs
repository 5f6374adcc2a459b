//! The I/O shell of the Slipway operator: watch, observe, plan, apply, status. It makes no decision
//! about rollouts; [`slipway_core::plan`] does.
//!
//! The modules, each of which depends only on those before it: [`metrics`]; [`watch`] updates the
//! caches and assembles the plan's input; [`apply`] writes objects; [`namespaces`] manages Leases,
//! settings and keys; [`gateways`] updates gateways; [`reconcile`] runs the whole sequence for one
//! ModelDeployment; [`process`] starts and stops it.

pub mod apply;
pub mod gateways;
pub mod metrics;
pub mod namespaces;
pub mod process;
pub mod reconcile;
pub mod watch;
