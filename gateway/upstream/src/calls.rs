//! How many calls an HTTP/2 connection to a pod may carry that the pod has not looked at yet.
//!
//! Servers take streams that are opened and taken back before they were looked at for an attack
//! (CVE-2023-44487): many close the connection at the 21st of them, with everybody's calls on it.
//! Clients who leave all at once are no attack, so there are never as many on one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Calls that are neither answered nor older than one that is.
const MAX_UNANSWERED: u64 = 16;

/// Counts of calls on a connection.
#[derive(Debug, Default)]
pub struct ConnectionCalls {
    opened: AtomicU64,
    /// The last one that was answered. The pod has seen all before it, too: it takes them in their
    /// order.
    last_answered: AtomicU64,
    /// Those that wait for the head of an answer.
    waiting: AtomicU64,
}

impl ConnectionCalls {
    /// Whether another one may be opened.
    pub fn has_room(&self) -> bool {
        self.opened
            .load(Ordering::Relaxed)
            .saturating_sub(self.last_answered.load(Ordering::Relaxed))
            < MAX_UNANSWERED
    }

    /// Whether there will be an answer. A connection that has neither room nor that is of no use
    /// any more.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// One more. One at a time, and only where there is room.
    pub fn open(self: &Arc<Self>) -> PendingCall {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        PendingCall {
            number: self.opened.fetch_add(1, Ordering::Relaxed) + 1,
            calls: Arc::clone(self),
        }
    }
}

/// A call, until the head of its answer is there or nobody waits for it any more.
#[derive(Debug)]
pub struct PendingCall {
    number: u64,
    calls: Arc<ConnectionCalls>,
}

impl PendingCall {
    /// The head of its answer is there.
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
