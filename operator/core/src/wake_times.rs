//! When a plan looks again although nothing changed.

use std::cell::RefCell;

use jiff::Timestamp;

/// Times at which something may change by itself. Whoever answers a question by the clock notes
/// when the answer may be another one: that changes nothing of what is decided, so it takes no
/// draft that may be changed.
#[derive(Debug, Default)]
pub(crate) struct WakeTimes(RefCell<Vec<Timestamp>>);

impl WakeTimes {
    /// Looks again at a time.
    pub(crate) fn note(&self, at: Timestamp) {
        self.0.borrow_mut().push(at);
    }

    /// The next one. A time that is over cannot be waited for: looking again would change nothing,
    /// for ever.
    pub(crate) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.borrow().iter().copied().filter(|at| *at > now).min()
    }
}
