//! The HTTP server of Slipway's programs: HTTP/1.1 and h2c on one port, with limits that no client
//! can use against the others.
//!
//! - **A timer from the start.** A connection that has not sent the head of its first request
//!   within [`ListenerSettings::header_timeout`] is closed. hyper's own timer starts only when the
//!   HTTP version is known: a single byte `P` may be HTTP/1 or HTTP/2, and would wait indefinitely.
//!   Later, a connection without a request in flight is closed after
//!   [`ListenerSettings::idle_timeout`].
//! - **A limit with eviction.** At [`ListenerSettings::max_connections`] a new connection replaces
//!   one without a request in flight: one that has been silent for a while, or else one of the peer
//!   (IP address) with the most connections. No peer loses a connection to one with more, so a peer
//!   may use all slots while no other peer needs one, and many connections from a few addresses
//!   never exclude another address.
//! - **Accepting never stops.** When all slots are used by requests in flight, which the limit
//!   never cuts, a new connection waits in this process, also with a timer; the peer with the
//!   fewest connections comes first. An admin port ([`OverloadPolicy::Preempt`]) does not wait even
//!   then.
//! - **Authentication** of the client at an admin port: the operator has a key ([`OperatorKey`]).
//! - **Graceful shutdown** ([`ShutdownMode`]): connections that the kernel has accepted are served,
//!   requests in flight finish, idle connections close.

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
