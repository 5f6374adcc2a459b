//! Waits after failures, by UID: kube has no backoff per object (kube#1916).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const INITIAL_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The wait after `failures` failures in a row; `chance` in [0, 1) spreads it by a fifth to both
/// sides, so that objects that failed together do not come back together.
pub fn retry_delay(failures: u32, chance: f64) -> Duration {
    let doubled = INITIAL_DELAY
        .saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(MAX_DELAY).mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
}

/// Failures in a row by UID.
#[derive(Debug, Default)]
pub struct ObjectBackoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl ObjectBackoff {
    /// Notes a failure and says how long to wait.
    pub fn record_failure(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        retry_delay(*count, rand::random())
    }

    /// How many failures in a row there were.
    pub fn failure_count(&self, uid: &str) -> u32 {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).get(uid).copied().unwrap_or(0)
    }

    /// Forgets the failures: after a success, or when the object is gone.
    pub fn reset(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
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
        assert_eq!(retry_delay(u32::MAX, 0.5), MAX_DELAY);
    }

    #[test]
    fn chance_spreads_by_a_fifth() {
        assert_eq!(retry_delay(1, 0.0), Duration::from_millis(200));
        assert_eq!(retry_delay(1, 1.0), Duration::from_millis(300));
    }

    #[test]
    fn success_forgets() {
        let backoff = ObjectBackoff::default();
        backoff.record_failure("a");
        backoff.record_failure("a");
        assert_eq!((backoff.failure_count("a"), backoff.failure_count("b")), (2, 0));
        backoff.reset("a");
        assert_eq!(backoff.failure_count("a"), 0);
    }
}
