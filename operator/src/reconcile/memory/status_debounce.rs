//! Delayed statuses, so that a burst of changes becomes one write.

use std::time::{Duration, Instant};

use crate::reconcile::memory::object::ObjectMemories;

/// Longest delay of a status that differs only in pod counts.
const MAX_STATUS_DELAY: Duration = Duration::from_secs(2);

impl ObjectMemories {
    /// How long the status of this object may still be delayed; `None` when it must be written now.
    /// The first call starts the delay.
    pub fn status_time_left(&self, uid: &str, now: Instant) -> Option<Duration> {
        let mut all = self.lock();
        let waits_since = &mut all.entry(uid.to_owned()).or_default().status_waits_since;
        let since = *waits_since.get_or_insert(now);
        let left =
            MAX_STATUS_DELAY.checked_sub(now.duration_since(since)).filter(|left| !left.is_zero());
        if left.is_none() {
            *waits_since = None;
        }
        left
    }

    /// Ends the delay: the status was written, or the difference has disappeared.
    pub fn clear_status_wait(&self, uid: &str) {
        if let Some(memory) = self.lock().get_mut(uid) {
            memory.status_waits_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_become_one_write() {
        let (waiting, start) = (ObjectMemories::default(), Instant::now());
        assert_eq!(waiting.status_time_left("u", start), Some(MAX_STATUS_DELAY));
        assert_eq!(
            waiting.status_time_left("u", start + Duration::from_millis(500)),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(waiting.status_time_left("u", start + MAX_STATUS_DELAY), None);
        assert_eq!(
            waiting.status_time_left("u", start + MAX_STATUS_DELAY),
            Some(MAX_STATUS_DELAY),
            "the clock starts anew"
        );
    }
}
