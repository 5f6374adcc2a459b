//! Estimates whether there is room for a job.
//!
//! Asking the server costs as much as enqueueing, so its last answer is used for a short time, plus
//! the jobs that this process has enqueued since. The estimate is never lower than the contribution
//! of this process, and a job is rejected only after a fresh answer.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long an answer is used.
const MAX_ESTIMATE_AGE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
struct ObservedUsage {
    at: Instant,
    entries: u64,
    bytes: u64,
}

/// The usage reported by the server's last answer.
#[derive(Debug, Default)]
pub(crate) struct CapacityEstimate(Mutex<Option<ObservedUsage>>);

impl CapacityEstimate {
    /// Records the server's answer to a query sent at `at`.
    pub(crate) fn observe(&self, entries: u64, bytes: u64, at: Instant) {
        *self.0.lock() = Some(ObservedUsage { at, entries, bytes });
    }

    /// Reserves room for a job of `bytes` within the limits of entries and bytes. Returns `false`
    /// when there is none, or no recent answer is known.
    pub(crate) fn try_reserve(
        &self,
        bytes: u64,
        (max_entries, max_bytes): (u64, u64),
        now: Instant,
    ) -> bool {
        let mut seen = self.0.lock();
        let Some(known) = seen
            .as_mut()
            .filter(|known| now.saturating_duration_since(known.at) < MAX_ESTIMATE_AGE)
        else {
            return false;
        };
        let (entries, bytes) = (known.entries.saturating_add(1), known.bytes.saturating_add(bytes));
        let fits = entries <= max_entries && bytes <= max_bytes;
        if fits {
            (known.entries, known.bytes) = (entries, bytes);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_since_counts() {
        let (room, bounds, now) = (CapacityEstimate::default(), (3, 100), Instant::now());
        assert!(!room.try_reserve(1, bounds, now), "nothing is known");
        room.observe(1, 10, now);
        assert_eq!(
            [1, 1, 1].map(|bytes| room.try_reserve(bytes, bounds, now)),
            [true, true, false]
        );
        room.observe(0, 95, now);
        assert_eq!(
            [6, 5, 1].map(|bytes| room.try_reserve(bytes, bounds, now)),
            [false, true, false]
        );
    }

    #[test]
    fn an_old_answer_is_none() {
        let (room, bounds, now) = (CapacityEstimate::default(), (10, 100), Instant::now());
        room.observe(0, 0, now);
        assert!(
            room.try_reserve(1, bounds, now + MAX_ESTIMATE_AGE / 2)
                && !room.try_reserve(1, bounds, now + MAX_ESTIMATE_AGE)
        );
    }
}
