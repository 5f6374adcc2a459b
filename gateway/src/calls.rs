//! How many calls an HTTP/2 connection to a pod may carry that the pod has not looked at yet.
//!
//! Servers take streams that are opened and taken back before they were looked at for an attack (CVE-2023-44487): many close the connection at the 21st of them, with
//! everybody's calls on it. Clients who leave all at once are no attack, so there are never as many on one connection.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Calls that are neither answered nor older than one that is.
const MAX_UNSEEN: u64 = 16;

/// Counts of calls on a connection.
#[derive(Debug, Default)]
pub struct Calls {
    opened: AtomicU64,
    /// The last one that was answered. The pod has seen all before it, too: it takes them in their order.
    seen: AtomicU64,
    /// Those that wait for the head of an answer.
    waiting: AtomicU64,
}

impl Calls {
    /// Whether another one may be opened.
    pub fn has_room(&self) -> bool {
        self.opened.load(Ordering::Relaxed).saturating_sub(self.seen.load(Ordering::Relaxed)) < MAX_UNSEEN
    }

    /// Whether there will be an answer. A connection that has neither room nor that is of no use any more.
    pub fn are_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// One more. One at a time, and only where there is room.
    pub fn open(self: &Arc<Self>) -> Call {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Call { number: self.opened.fetch_add(1, Ordering::Relaxed) + 1, calls: Arc::clone(self) }
    }
}

/// A call, until the head of its answer is there or nobody waits for it any more.
#[derive(Debug)]
pub struct Call {
    number: u64,
    calls: Arc<Calls>,
}

impl Call {
    /// The head of its answer is there.
    pub fn answered(self) {
        self.calls.seen.fetch_max(self.number, Ordering::Relaxed);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_makes_room_for_as_many_as_came_before_it() {
        let calls = Arc::<Calls>::default();
        let mut open: Vec<_> = (0..MAX_UNSEEN).map(|_| calls.open()).collect();
        assert!(!calls.has_room() && calls.are_waiting());
        open.remove(4).answered();
        assert!((0..5).all(|_| calls.has_room().then(|| open.push(calls.open())).is_some()) && !calls.has_room());
        open.remove(0).answered();
        assert!(!calls.has_room(), "an older one says nothing new");
        drop(open);
        assert!(!calls.has_room() && !calls.are_waiting());
    }
}
