//! Waits between attempts: exponential backoff and its jitter. Pure functions take the chance as an
//! argument.

use std::time::Duration;

/// How chance changes a wait, so that clients that failed together do not retry together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// Not at all.
    None,
    /// Anything up to the wait: "full jitter".
    Full,
    /// At most this share is taken off.
    Subtract(f64),
    /// At most this share is taken off or added.
    PlusMinus(f64),
}

impl Jitter {
    /// The wait for a `chance` of 0 to 1.
    pub fn apply(self, wait: Duration, chance: f64) -> Duration {
        let chance = chance.clamp(0.0, 1.0);
        match self {
            Self::None => wait,
            Self::Full => wait.mul_f64(chance),
            Self::Subtract(share) => wait.mul_f64(1.0 - share + share * chance),
            Self::PlusMinus(share) => wait.mul_f64(1.0 - share + 2.0 * share * chance),
        }
    }

    /// [`apply`](Self::apply) with the randomness of the process.
    pub fn apply_random(self, wait: Duration) -> Duration {
        self.apply(wait, rand::random())
    }
}

/// A wait that doubles with every failure in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first wait, before jitter.
    pub initial: Duration,
    /// The longest wait, before jitter.
    pub max: Duration,
    /// What chance does to it.
    pub jitter: Jitter,
}

impl Backoff {
    /// The wait after `attempt` failures in a row, from 1, before jitter.
    pub fn base_delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }

    /// The wait after `attempt` failures in a row for a `chance` of 0 to 1.
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        self.jitter.apply(self.base_delay(attempt), chance)
    }

    /// [`delay`](Self::delay) with the randomness of the process.
    pub fn random_delay(&self, attempt: u32) -> Duration {
        self.delay(attempt, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![
            Just(Jitter::None),
            Just(Jitter::Full),
            (0.0..=1.0_f64).prop_map(Jitter::Subtract),
            (0.0..=1.0_f64).prop_map(Jitter::PlusMinus),
        ]
    }

    /// The shares of a wait between which jitter may leave it.
    fn bounds(jitter: Jitter) -> (f64, f64) {
        match jitter {
            Jitter::None => (1.0, 1.0),
            Jitter::Full => (0.0, 1.0),
            Jitter::Subtract(share) => (1.0 - share, 1.0),
            Jitter::PlusMinus(share) => (1.0 - share, 1.0 + share),
        }
    }

    proptest! {
        #[test]
        fn base_delays_grow_up_to_the_maximum(
            initial in 1_u64..10_000, more in 0_u64..10_000_000, attempt in 0_u32..,
        ) {
            let max = Duration::from_millis(initial + more);
            let initial = Duration::from_millis(initial);
            let backoff = Backoff { initial, max, jitter: Jitter::None };
            let next = backoff.base_delay(attempt.saturating_add(1));
            prop_assert_eq!(backoff.base_delay(1), initial);
            prop_assert_eq!(backoff.base_delay(64), max.min(initial.saturating_mul(1 << 31)));
            prop_assert!(backoff.base_delay(attempt) <= next);
            prop_assert!(backoff.base_delay(attempt) <= max);
            prop_assert_eq!(backoff.random_delay(attempt), backoff.base_delay(attempt));
        }

        #[test]
        fn delays_stay_within_the_bounds_of_their_jitter(
            jitter in jitter(), wait in 0_u64..100_000_000, chance in 0.0..=1.0_f64,
        ) {
            let wait = Duration::from_millis(wait);
            let (least, most) = bounds(jitter);
            let rounding = Duration::from_micros(1);
            for delay in [jitter.apply(wait, chance), jitter.apply_random(wait)] {
                prop_assert!(delay + rounding >= wait.mul_f64(least));
                prop_assert!(delay <= wait.mul_f64(most) + rounding);
            }
            prop_assert!(jitter.apply(wait, 0.0) <= jitter.apply(wait, chance));
            prop_assert!(jitter.apply(wait, chance) <= jitter.apply(wait, 1.0));
        }
    }

    #[test]
    fn chance_moves_a_wait_between_its_bounds() {
        let ends = |jitter: Jitter| {
            let wait = Duration::from_secs(10);
            [0.0, 0.5, 1.0].map(|chance| jitter.apply(wait, chance).as_millis())
        };
        assert_eq!(ends(Jitter::None), [10_000, 10_000, 10_000]);
        assert_eq!(ends(Jitter::Full), [0, 5_000, 10_000]);
        assert_eq!(ends(Jitter::Subtract(0.5)), [5_000, 7_500, 10_000]);
        assert_eq!(ends(Jitter::PlusMinus(0.2)), [8_000, 10_000, 12_000]);
    }
}
