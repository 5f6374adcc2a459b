//! The listener of Slipway's programs: HTTP/1.1 and h2c on one port, with bounds that no client can
//! turn against the others.
//!
//! - **A timer from the first moment.** A connection that has not sent the head of its first
//!   request within [`ListenerSettings::header_timeout`] is closed. hyper's own timer begins only
//!   when the version of HTTP is known: one byte `P` may be HTTP/1 or HTTP/2, and would wait for
//!   ever. Later, a connection without a request in flight is closed after
//!   [`ListenerSettings::idle_timeout`].
//! - **A bound that makes room.** At [`ListenerSettings::max_connections`] a new connection takes
//!   the place of one that has no request in flight: of one that was silent for a while, or else of
//!   one of the peer (IP address) that holds most. No peer loses a connection to one that holds
//!   more, so a peer may hold all places while nobody else wants one, and a crowd from a few
//!   addresses never keeps another address out.
//! - **Accepting never stops.** When all places are taken by requests in flight, which the bound
//!   never cuts, a new connection waits here, with a timer as well; the peer that holds least comes
//!   first. An admin port ([`OverloadPolicy::Cut`]) does not wait even then.
//! - **Who asks** at an admin port can be asked for: the operator has a key ([`OperatorKey`]).
//! - **An orderly end** ([`ShutdownMode`]): what the kernel has accepted is served, requests in
//!   flight finish, idle connections close.

mod bind;
mod connection;
mod entry;
mod operator_key;
mod server;
mod settings;
mod table;
mod tracking;

pub use bind::bind_address;
pub use operator_key::{
    InvalidKey, OperatorAuthError, OperatorKey, OperatorPublicKey, SKEW_SECONDS,
};
pub use server::HttpServer;
pub use settings::{ListenerSettings, OverloadPolicy, ShutdownMode};
pub use tracking::CountedBody;
