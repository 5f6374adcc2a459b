//! Delays after failures, by UID: kube has no backoff per object (kube#1916).

use std::time::Duration;

use slipway_chassis::backoff::{Backoff, Jitter};

use crate::reconcile::memory::object::ObjectMemories;

const RETRY_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(250),
    max: Duration::from_secs(60),
    jitter: Jitter::PlusMinus(0.2),
};

/// The wait after `failures` failures in a row, for a `chance` of 0 to 1.
pub fn retry_delay(failures: u32, chance: f64) -> Duration {
    RETRY_BACKOFF.delay(failures, chance)
}

impl ObjectMemories {
    /// Records a failure and returns the delay of the retry.
    pub fn record_failure(&self, uid: &str) -> Duration {
        let mut all = self.lock();
        let count = &mut all.entry(uid.to_owned()).or_default().failures;
        *count = count.saturating_add(1);
        retry_delay(*count, rand::random())
    }

    /// Number of consecutive failures.
    pub fn failure_count(&self, uid: &str) -> u32 {
        self.lock().get(uid).map_or(0, |it| it.failures)
    }

    /// Resets the failure count after a success.
    pub fn reset_failures(&self, uid: &str) {
        if let Some(memory) = self.lock().get_mut(uid) {
            memory.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let middle: Vec<u128> = (1..=12).map(|n| retry_delay(n, 0.5).as_millis()).collect();
        assert_eq!(middle[..4], [250, 500, 1000, 2000]);
        assert_eq!(middle[9..], [60_000, 60_000, 60_000]);
        assert_eq!(retry_delay(u32::MAX, 0.5), RETRY_BACKOFF.max);
    }

    #[test]
    fn chance_spreads_by_a_fifth() {
        assert_eq!(retry_delay(1, 0.0), Duration::from_millis(200));
        assert_eq!(retry_delay(1, 1.0), Duration::from_millis(300));
    }

    #[test]
    fn success_forgets() {
        let backoff = ObjectMemories::default();
        backoff.record_failure("a");
        backoff.record_failure("a");
        assert_eq!((backoff.failure_count("a"), backoff.failure_count("b")), (2, 0));
        backoff.reset_failures("a");
        assert_eq!(backoff.failure_count("a"), 0);
    }
}
