//! Limits and timers of a port.

use std::time::Duration;

/// Limits and timers of a port.
#[derive(Clone, Copy, Debug)]
pub struct ListenerSettings {
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Time from accepting a connection to the end of the head of its first request.
    pub header_timeout: Duration,
    /// Time without a request in flight after that.
    pub idle_timeout: Duration,
    /// What happens to a new connection when all others have requests in flight.
    pub overload_policy: OverloadPolicy,
    /// What happens to the connections at shutdown.
    pub shutdown_mode: ShutdownMode,
}

/// What happens to a new connection when all others have requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadPolicy {
    /// It waits until one of them ends or is idle. For ports whose requests are more valuable than
    /// a new client's time.
    Wait,
    /// The oldest request of the peer with the most connections is cut, if that peer has more than
    /// the new one's. For ports that must answer a probe under any load, and whose requests can be
    /// repeated.
    Preempt,
}

/// What happens to the connections at shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Connections in the kernel's queue are accepted, requests in flight finish, and clients are
    /// asked to disconnect. Without a time limit: the caller sets one.
    Drain,
    /// All are closed at once.
    Abort,
}

impl ListenerSettings {
    /// Settings for probes, metrics and similar requests: few connections, a short timer for the
    /// first request head, and a slot for every new peer.
    pub const fn for_admin_port(end: ShutdownMode) -> Self {
        Self {
            max_connections: 256,
            header_timeout: Duration::from_secs(5),
            // Longer than the scrape interval of any Prometheus that keeps its connection open.
            idle_timeout: Duration::from_secs(300),
            overload_policy: OverloadPolicy::Preempt,
            shutdown_mode: end,
        }
    }
}
