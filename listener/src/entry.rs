//! One connection, as the table knows it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::settings::ListenerSettings;

/// A connection that said nothing for so long is one that somebody parked: a request follows its
/// connection at once. And one that was idle for so long is not between two requests of a busy
/// client, who would lose the next one.
pub(crate) const IDLE_GRACE: Duration = Duration::from_secs(1);

/// What a connection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CloseOrder {
    /// Nothing.
    KeepOpen,
    /// To finish what it is at, and close.
    Graceful,
    /// To close at once, unless a request has come in this very moment.
    IfIdle,
    /// To close at once.
    Immediate,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct ConnectionEntry {
    pub(crate) id: u64,
    pub(crate) peer: IpAddr,
    accepted: Instant,
    /// Whether it has a place; until then it waits.
    admitted: AtomicBool,
    /// Whether the head of a request has arrived.
    pub(crate) sent_request: AtomicBool,
    /// Requests in flight.
    pub(crate) active: AtomicUsize,
    /// Whether the client is slow to take what was written: the end of an answer is on its way.
    blocked: AtomicBool,
    /// When it got its place, or its last request ended, in milliseconds since it was accepted.
    idle_since: AtomicU64,
    order: AtomicU8,
    /// Wakes the connection's task: it has a place.
    pub(crate) admission: Notify,
    /// Wakes the connection's task: it has an order.
    pub(crate) orders: Notify,
    /// Wakes when the head of the first request has arrived.
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

    /// No request in flight, and no answer on its way.
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

    /// Notes whether the client keeps a write waiting.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.touch();
            self.blocked.store(blocked, Ordering::Release);
        }
    }

    fn idle_since(&self) -> Instant {
        self.accepted + Duration::from_millis(self.idle_since.load(Ordering::Acquire))
    }

    /// Idle for so long that its client is not between two requests.
    pub(crate) fn is_long_idle(&self, now: Instant) -> bool {
        self.is_idle() && now.saturating_duration_since(self.idle_since()) >= IDLE_GRACE
    }

    /// When it is overdue, if nothing happens; never while a request is in flight.
    pub(crate) fn deadline(&self, settings: &ListenerSettings) -> Option<Instant> {
        if !self.has_sent_request() {
            return Some(self.accepted + settings.header_timeout);
        }
        (self.active.load(Ordering::Acquire) == 0)
            .then(|| self.idle_since() + settings.idle_timeout)
    }
}
