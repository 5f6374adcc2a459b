//! A circuit breaker for Redis. Pure; the clock is passed in.
//!
//! Closed: every request queries Redis. When half of the last 16 queries failed, the breaker opens
//! and no request queries Redis. After a while it is half open: one trial query runs outside of any
//! request. Its success closes the breaker; its failure opens it for twice as long.

use std::time::{Duration, Instant};

use slipway_chassis::backoff::{Backoff, Jitter};

/// Failures among the last 16 answers that open it.
const FAILURE_THRESHOLD: u32 = 8;
/// For how long it stays open at first, and at most.
const OPEN_TIME: Backoff = Backoff {
    initial: Duration::from_millis(500),
    max: Duration::from_secs(30),
    jitter: Jitter::None,
};
/// A trial that has not been heard of for so long is lost; another may start.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All requests may query Redis.
    Closed,
    /// No request may query Redis before this time.
    Open(Instant),
    /// A trial runs, since this time.
    HalfOpen(Instant),
}

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerPermit {
    /// Query Redis, then call [`CircuitBreaker::record`] with the outcome.
    Allow,
    /// Continue without Redis, start a trial in the background, and call
    /// [`CircuitBreaker::record_trial`] with its outcome.
    Trial,
    /// Continue without Redis.
    Deny,
}

#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    state: BreakerState,
    /// The last 16 outcomes, the newest in the lowest bit; 1 is a failure.
    history: u16,
    /// Number of openings since the last success.
    consecutive_openings: u32,
}

impl CircuitBreaker {
    /// Starts open until `now`: nothing is known about Redis yet, so the first request starts a
    /// trial.
    pub fn new(now: Instant) -> Self {
        Self { state: BreakerState::Open(now), history: 0, consecutive_openings: 0 }
    }

    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// What a request may do now.
    pub fn permit(&mut self, now: Instant) -> BreakerPermit {
        match self.state {
            BreakerState::Closed => BreakerPermit::Allow,
            BreakerState::Open(until) if now >= until => {
                self.state = BreakerState::HalfOpen(now);
                BreakerPermit::Trial
            }
            BreakerState::HalfOpen(since)
                if now.saturating_duration_since(since) >= TRIAL_TIMEOUT =>
            {
                self.state = BreakerState::HalfOpen(now);
                BreakerPermit::Trial
            }
            BreakerState::Open(_) | BreakerState::HalfOpen(_) => BreakerPermit::Deny,
        }
    }

    /// Records the outcome of a query. Outcomes of queries from before the breaker opened are
    /// ignored.
    pub fn record(&mut self, now: Instant, worked: bool) {
        if self.state != BreakerState::Closed {
            return;
        }
        self.history = self.history << 1 | u16::from(!worked);
        if self.history.count_ones() >= FAILURE_THRESHOLD {
            self.open(now);
        }
    }

    /// Records the outcome of the trial.
    pub fn record_trial(&mut self, now: Instant, worked: bool) {
        if !matches!(self.state, BreakerState::HalfOpen(_)) {
            return;
        }
        if worked {
            *self = Self { state: BreakerState::Closed, history: 0, consecutive_openings: 0 };
        } else {
            self.open(now);
        }
    }

    fn open(&mut self, now: Instant) {
        self.consecutive_openings = self.consecutive_openings.saturating_add(1);
        let pause = OPEN_TIME.base_delay(self.consecutive_openings);
        self.state = BreakerState::Open(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn closed(now: Instant) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::new(now);
        assert_eq!(breaker.permit(now), BreakerPermit::Trial);
        breaker.record_trial(now, true);
        breaker
    }

    #[test]
    fn opens_by_failures_and_closes_by_a_trial() {
        let now = Instant::now();
        let mut breaker = closed(now);
        for _ in 0..7 {
            breaker.record(now, false);
            assert_eq!(breaker.permit(now), BreakerPermit::Allow);
        }
        breaker.record(now, false);
        assert_eq!(breaker.permit(now), BreakerPermit::Deny);
        let later = now + OPEN_TIME.initial;
        assert_eq!(breaker.permit(later), BreakerPermit::Trial);
        assert_eq!(breaker.permit(later), BreakerPermit::Deny, "one tries at a time");
        breaker.record_trial(later, false);
        assert_eq!(breaker.permit(later + OPEN_TIME.initial), BreakerPermit::Deny, "twice as long");
        assert_eq!(breaker.permit(later + OPEN_TIME.initial * 2), BreakerPermit::Trial);
        breaker.record_trial(later + OPEN_TIME.initial * 2, true);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_lost_trial_does_not_keep_it_half_open() {
        let now = Instant::now();
        let mut breaker = CircuitBreaker::new(now);
        assert_eq!(breaker.permit(now), BreakerPermit::Trial);
        assert_eq!(breaker.permit(now + TRIAL_TIMEOUT), BreakerPermit::Trial);
    }

    #[test]
    fn a_tenth_of_failures_is_borne() {
        let now = Instant::now();
        let mut breaker = closed(now);
        (0..1000).for_each(|n| breaker.record(now, n % 10 != 0));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    proptest! {
        /// For every sequence of events: at most one trial at a time, none before its time, and a
        /// Redis that works again is queried again soon.
        #[test]
        fn holds_what_it_promises(steps in proptest::collection::vec((0..4_u8, 0..2000_u64, any::<bool>()), 1..200)) {
            let mut now = Instant::now();
            let mut breaker = CircuitBreaker::new(now);
            let mut trial: Option<Instant> = None;
            for (step, millis, worked) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0 | 1 => {
                        let before = breaker.state();
                        let permit = breaker.permit(now);
                        match before {
                            BreakerState::Closed => prop_assert_eq!(permit, BreakerPermit::Allow),
                            BreakerState::Open(until) => prop_assert_eq!(permit == BreakerPermit::Trial, now >= until),
                            BreakerState::HalfOpen(_) => prop_assert!(permit != BreakerPermit::Allow),
                        }
                        if permit == BreakerPermit::Trial {
                            prop_assert!(trial.is_none_or(|since| now - since >= TRIAL_TIMEOUT));
                            trial = Some(now);
                        }
                    }
                    2 => breaker.record(now, worked),
                    _ => if trial.take().is_some() {
                        breaker.record_trial(now, worked);
                        prop_assert!(!matches!(breaker.state(), BreakerState::HalfOpen(_)));
                    },
                }
                if let BreakerState::Open(until) = breaker.state() {
                    prop_assert!(until <= now + OPEN_TIME.max);
                }
            }
            now += OPEN_TIME.max + TRIAL_TIMEOUT;
            if breaker.permit(now) == BreakerPermit::Trial {
                breaker.record_trial(now, true);
            }
            prop_assert_eq!(breaker.permit(now), BreakerPermit::Allow);
        }
    }
}
