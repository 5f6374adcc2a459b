//! Statuses that wait, so that a burst of changes becomes one write.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a status may wait whose difference is only in counts of pods, so that a burst of
/// changes becomes one write.
pub const MAX_STATUS_DELAY: Duration = Duration::from_secs(2);

/// Statuses that wait, by UID: since when.
#[derive(Default)]
pub struct StatusDebounce {
    since: Mutex<HashMap<String, Instant>>,
}

impl StatusDebounce {
    /// How long a status of this object may still wait; nothing: write it now. The first call
    /// starts the clock.
    pub fn time_left(&self, uid: &str, now: Instant) -> Option<Duration> {
        let mut all = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *all.entry(uid.to_owned()).or_insert(now);
        let left =
            MAX_STATUS_DELAY.checked_sub(now.duration_since(since)).filter(|left| !left.is_zero());
        if left.is_none() {
            all.remove(uid);
        }
        left
    }

    /// Nothing waits any more: it was written, or the difference went away, or the object.
    pub fn clear(&self, uid: &str) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_become_one_write() {
        let (waiting, start) = (StatusDebounce::default(), Instant::now());
        assert_eq!(waiting.time_left("u", start), Some(MAX_STATUS_DELAY));
        assert_eq!(
            waiting.time_left("u", start + Duration::from_millis(500)),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(waiting.time_left("u", start + MAX_STATUS_DELAY), None);
        assert_eq!(
            waiting.time_left("u", start + MAX_STATUS_DELAY),
            Some(MAX_STATUS_DELAY),
            "the clock starts anew"
        );
    }
}
