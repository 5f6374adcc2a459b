//! Restricts outgoing requests: one guard for all requests to addresses that not only the cluster's
//! operator controls.
//!
//! [`IpNetwork`] and [`is_address_allowed`] check addresses, [`AllowList`] checks names, and
//! [`EgressGuard`] builds HTTP clients that respect both. A client resolves names through the guard
//! and connects only to the returned addresses, so a name that changes its address between a check
//! and the connection gains nothing.

mod allow;
mod guard;
mod network;

pub use allow::{AllowList, AllowRule, RefusedUrl};
pub use guard::{EgressGuard, HostLookup, NOT_PUBLIC, was_refused};
pub use network::{IpNetwork, is_address_allowed};
