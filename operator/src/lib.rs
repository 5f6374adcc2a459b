//! The I/O shell of the Slipway operator: watch, observe, plan, apply, status. It decides nothing
//! about rollouts; that is [`slipway_core::plan`]'s.
//!
//! The modules, each of which uses those before it: [`metrics`]; [`watch`] feeds the caches and
//! observes; [`apply`] writes; [`namespaces`] has Leases, settings and keys; [`gateways`] updates
//! gateways; [`reconcile`] drives all that for one ModelDeployment; [`process`] starts and ends it.

pub mod apply;
pub mod gateways;
pub mod metrics;
pub mod namespaces;
pub mod process;
pub mod reconcile;
pub mod watch;
