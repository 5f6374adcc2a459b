//! Times at which a plan is made again although nothing changed.

use std::cell::RefCell;

use jiff::Timestamp;

/// Times at which a decision may change without any event. A function whose result depends on the
/// clock records when the result may change. This does not affect the decision itself, so `note`
/// does not need a mutable draft.
#[derive(Debug, Default)]
pub(crate) struct WakeTimes(RefCell<Vec<Timestamp>>);

impl WakeTimes {
    /// Requests another plan at a time.
    pub(crate) fn note(&self, at: Timestamp) {
        self.0.borrow_mut().push(at);
    }

    /// The next time. A past time is ignored: another plan would change nothing and wake at once
    /// again, endlessly.
    pub(crate) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.borrow().iter().copied().filter(|at| *at > now).min()
    }
}
