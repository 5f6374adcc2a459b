//! What may be called: one guard for all calls to addresses in which others than the operator of a
//! cluster have a say.
//!
//! [`IpNetwork`] and [`is_address_allowed`] know addresses, [`AllowList`] the names that somebody
//! allows, and [`EgressGuard`] makes HTTP clients that keep to both. A client resolves names by the
//! guard and connects to what that hands it, so a name that changes its address between a check and
//! the connection gains nothing.

mod allow;
mod guard;
mod network;

pub use allow::{AllowList, AllowRule, RefusedUrl};
pub use guard::{EgressGuard, HostLookup, NOT_PUBLIC, was_refused};
pub use network::{IpNetwork, is_address_allowed};
