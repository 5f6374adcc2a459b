//! Limits the calls on an HTTP/2 connection to a pod that the pod has not processed yet.
//!
//! Servers regard streams that are opened and reset before they are processed as an attack
//! (CVE-2023-44487): many close the connection at the 21st of them, with all calls on it. Clients
//! that disconnect simultaneously must not cause this, so the number per connection is limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum number of calls that are neither answered nor older than an answered one.
const MAX_UNANSWERED: u64 = 16;

/// Counts of calls on a connection.
#[derive(Debug, Default)]
pub struct ConnectionCalls {
    opened: AtomicU64,
    /// The last answered call. The pod has seen all calls before it, because it accepts them in
    /// order.
    last_answered: AtomicU64,
    /// Number of calls that wait for the head of an answer.
    waiting: AtomicU64,
}

impl ConnectionCalls {
    /// Whether another call may be opened.
    pub fn has_room(&self) -> bool {
        self.opened
            .load(Ordering::Relaxed)
            .saturating_sub(self.last_answered.load(Ordering::Relaxed))
            < MAX_UNANSWERED
    }

    /// Whether an answer is pending. A connection that has neither this nor room for another call
    /// cannot be used any more.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Opens a call. Calls must not be opened concurrently, and only where there is room.
    pub fn open(self: &Arc<Self>) -> PendingCall {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        PendingCall {
            number: self.opened.fetch_add(1, Ordering::Relaxed) + 1,
            calls: Arc::clone(self),
        }
    }
}

/// A call; dropped when its answer is not awaited any more.
#[derive(Debug)]
pub struct PendingCall {
    number: u64,
    calls: Arc<ConnectionCalls>,
}

impl PendingCall {
    /// Records that the head of the answer has arrived.
    pub fn mark_answered(self) {
        self.calls.last_answered.fetch_max(self.number, Ordering::Relaxed);
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.calls.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_makes_room_for_as_many_as_came_before_it() {
        let calls = Arc::<ConnectionCalls>::default();
        let mut open: Vec<_> = (0..MAX_UNANSWERED).map(|_| calls.open()).collect();
        assert!(!calls.has_room() && calls.has_waiting());
        open.remove(4).mark_answered();
        assert!(
            (0..5).all(|_| calls.has_room().then(|| open.push(calls.open())).is_some())
                && !calls.has_room()
        );
        open.remove(0).mark_answered();
        assert!(!calls.has_room(), "an older one says nothing new");
        drop(open);
        assert!(!calls.has_room() && !calls.has_waiting());
    }
}
