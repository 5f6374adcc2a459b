//! Exponential backoff with full jitter.

use std::time::Duration;

/// A delay that doubles with every attempt up to a most.
#[derive(Debug, Clone, Copy)]
pub struct RetryBackoff {
    /// Upper bound of the first delay.
    pub first: Duration,
    /// Upper bound of all.
    pub max: Duration,
}

impl RetryBackoff {
    /// The upper bound after `attempt` failures, from 1.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }

    /// The delay for `random` of 0 to 1: anything up to the bound, so that those who failed
    /// together do not come back together.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        self.ceiling(attempt).mul_f64(random.clamp(0.0, 1.0))
    }

    /// A delay by the process's randomness.
    pub fn jittered_delay(&self, attempt: u32) -> Duration {
        self.delay(attempt, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn delays_grow_and_stay_in_bounds(first in 1_u64..10_000, more in 0_u64..10_000_000, attempt in 0_u32.., random in 0.0..=1.0_f64) {
            let backoff = RetryBackoff { first: Duration::from_millis(first), max: Duration::from_millis(first + more) };
            let delay = backoff.delay(attempt, random);
            prop_assert!(delay <= backoff.ceiling(attempt) && backoff.ceiling(attempt) <= backoff.max);
            prop_assert!(backoff.ceiling(attempt) <= backoff.ceiling(attempt.saturating_add(1)));
            prop_assert!(backoff.ceiling(1) == backoff.first && backoff.ceiling(64) == backoff.max.min(backoff.first.saturating_mul(1 << 31)));
            prop_assert!(backoff.jittered_delay(attempt) <= backoff.max);
        }
    }
}
