//! The state of one connection in the table.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::settings::ListenerSettings;

/// A new connection that has been silent for this long is assumed to be unused, because a request
/// normally follows its connection at once. A connection that has been idle for this long is not
/// between two requests of a busy client, which would lose its next request.
pub(crate) const IDLE_GRACE: Duration = Duration::from_secs(1);

/// A close request to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CloseOrder {
    /// None.
    KeepOpen,
    /// Finish the current requests, and close.
    Graceful,
    /// Close at once, unless a request has just arrived.
    IfIdle,
    /// Close at once.
    Immediate,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionEntry {
    pub(crate) id: u64,
    pub(crate) peer: IpAddr,
    accepted: Instant,
    /// Whether it has a slot; until then it waits.
    admitted: AtomicBool,
    /// Whether the head of a request has arrived.
    pub(crate) sent_request: AtomicBool,
    /// Number of requests in flight.
    pub(crate) active: AtomicUsize,
    /// Whether the client reads written data too slowly: the end of an answer is still in transit.
    blocked: AtomicBool,
    /// When it got its slot, or its last request ended, in milliseconds since it was accepted.
    idle_since: AtomicU64,
    order: AtomicU8,
    /// Wakes the connection's task when it gets a slot.
    pub(crate) admission: Notify,
    /// Wakes the connection's task when it gets a close request.
    pub(crate) orders: Notify,
    /// Wakes the connection's task when the head of the first request has arrived.
    pub(crate) first_request: Notify,
}

impl ConnectionEntry {
    pub(crate) fn new(id: u64, peer: IpAddr) -> Self {
        Self {
            id,
            peer,
            accepted: Instant::now(),
            admitted: AtomicBool::new(false),
            sent_request: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            order: AtomicU8::new(CloseOrder::KeepOpen as u8),
            admission: Notify::new(),
            orders: Notify::new(),
            first_request: Notify::new(),
        }
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    pub(crate) fn has_sent_request(&self) -> bool {
        self.sent_request.load(Ordering::Acquire)
    }

    /// Whether no request is in flight, and no answer in transit.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.load(Ordering::Acquire) == 0 && !self.blocked.load(Ordering::Acquire)
    }

    pub(crate) fn order(&self) -> CloseOrder {
        match self.order.load(Ordering::Acquire) {
            0 => CloseOrder::KeepOpen,
            1 => CloseOrder::Graceful,
            2 => CloseOrder::IfIdle,
            _ => CloseOrder::Immediate,
        }
    }

    pub(crate) fn set_order(&self, order: CloseOrder) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.orders.notify_one();
    }

    pub(crate) fn admit(&self) {
        self.touch();
        self.admitted.store(true, Ordering::Release);
        self.admission.notify_one();
    }

    pub(crate) fn touch(&self) {
        let passed = u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(passed, Ordering::Release);
    }

    /// Sets whether a write is waiting for the client.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.touch();
            self.blocked.store(blocked, Ordering::Release);
        }
    }

    fn idle_since(&self) -> Instant {
        self.accepted + Duration::from_millis(self.idle_since.load(Ordering::Acquire))
    }

    /// Whether it has been idle for so long that its client is not between two requests.
    pub(crate) fn is_long_idle(&self, now: Instant) -> bool {
        self.is_idle() && now.saturating_duration_since(self.idle_since()) >= IDLE_GRACE
    }

    /// When it is overdue without further activity; `None` while a request is in flight.
    pub(crate) fn deadline(&self, settings: &ListenerSettings) -> Option<Instant> {
        if !self.has_sent_request() {
            return Some(self.accepted + settings.header_timeout);
        }
        (self.active.load(Ordering::Acquire) == 0)
            .then(|| self.idle_since() + settings.idle_timeout)
    }
}
