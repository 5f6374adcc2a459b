//! Bounds and timers of a port.

use std::time::Duration;

/// Bounds and timers of a port.
#[derive(Clone, Copy, Debug)]
pub struct ListenerSettings {
    /// Connections at one time.
    pub max_connections: usize,
    /// Time from the moment a connection is accepted to the end of the head of its first request.
    pub header_timeout: Duration,
    /// Time without a request in flight, afterwards.
    pub idle_timeout: Duration,
    /// What a new connection does when all others have requests in flight.
    pub overload_policy: OverloadPolicy,
    /// What becomes of the connections when the port is told to stop.
    pub shutdown_mode: ShutdownMode,
}

/// What a new connection does when all others have requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadPolicy {
    /// It waits until one of them ends or is idle. For ports whose requests are worth more than a
    /// new client's time.
    Wait,
    /// The oldest request of the peer that holds most is cut, if that peer holds more than the new
    /// one's. For ports that must answer a probe whatever others do, and whose requests can be sent
    /// again.
    Preempt,
}

/// What becomes of the connections when the port is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// What the kernel has accepted is accepted, requests in flight finish, and clients are asked
    /// to leave. However long it takes: the caller has the clock.
    Drain,
    /// All are closed at once.
    Abort,
}

impl ListenerSettings {
    /// A port for probes, metrics and the like: few connections, a short timer for the first head,
    /// and a place for every new peer.
    pub const fn for_admin_port(end: ShutdownMode) -> Self {
        Self {
            max_connections: 256,
            header_timeout: Duration::from_secs(5),
            // Longer than the time between two scrapes of any Prometheus that keeps its connection.
            idle_timeout: Duration::from_secs(300),
            overload_policy: OverloadPolicy::Preempt,
            shutdown_mode: end,
        }
    }
}
