//! The circuit breaker: when not to ask Redis at all. Pure, with the clock passed in.
//!
//! Closed, every request asks. When half of the last 16 answers failed it opens, and nobody asks. After a while it is half open: one asker
//! tries, off the way of any request, and its success closes the breaker; a failure opens it for twice as long.

use std::time::{Duration, Instant};

/// Failures among the last 16 answers that open it.
const FAILURES: u32 = 8;
/// For how long it stays open at first, and at most.
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// A trial that has not been heard of for so long is lost; another may start.
const LOST: Duration = Duration::from_secs(10);

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everybody asks.
    Closed,
    /// Nobody asks until then.
    Open(Instant),
    /// One tries, since then.
    HalfOpen(Instant),
}

/// What an asker may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Ask, and [`Breaker::record`] how it went.
    Ask,
    /// Do without; but try aside, and tell [`Breaker::tried`].
    Try,
    /// Do without.
    DoWithout,
}

/// A circuit breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    /// The last 16 answers, the newest in the lowest bit; 1 is a failure.
    history: u16,
    /// Openings without a success in between.
    opened: u32,
}

impl Breaker {
    /// Nothing is known yet, so the first asker tries.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Open(now), history: 0, opened: 0 }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What an asker may do now.
    pub fn permit(&mut self, now: Instant) -> Permit {
        match self.state {
            State::Closed => Permit::Ask,
            State::Open(until) if now >= until => {
                self.state = State::HalfOpen(now);
                Permit::Try
            }
            State::HalfOpen(since) if now.saturating_duration_since(since) >= LOST => {
                self.state = State::HalfOpen(now);
                Permit::Try
            }
            State::Open(_) | State::HalfOpen(_) => Permit::DoWithout,
        }
    }

    /// How an answer went. One that was asked for before the breaker opened says nothing new.
    pub fn record(&mut self, now: Instant, worked: bool) {
        if self.state != State::Closed {
            return;
        }
        self.history = self.history << 1 | u16::from(!worked);
        if self.history.count_ones() >= FAILURES {
            self.open(now);
        }
    }

    /// How the trial went.
    pub fn tried(&mut self, now: Instant, worked: bool) {
        if !matches!(self.state, State::HalfOpen(_)) {
            return;
        }
        if worked {
            *self = Self { state: State::Closed, history: 0, opened: 0 };
        } else {
            self.open(now);
        }
    }

    fn open(&mut self, now: Instant) {
        let pause = SHORTEST.saturating_mul(1 << self.opened.min(16)).min(LONGEST);
        self.state = State::Open(now + pause);
        self.opened = self.opened.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn closed(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        assert_eq!(breaker.permit(now), Permit::Try);
        breaker.tried(now, true);
        breaker
    }

    #[test]
    fn opens_by_failures_and_closes_by_a_trial() {
        let now = Instant::now();
        let mut breaker = closed(now);
        for _ in 0..7 {
            breaker.record(now, false);
            assert_eq!(breaker.permit(now), Permit::Ask);
        }
        breaker.record(now, false);
        assert_eq!(breaker.permit(now), Permit::DoWithout);
        let later = now + SHORTEST;
        assert_eq!(breaker.permit(later), Permit::Try);
        assert_eq!(breaker.permit(later), Permit::DoWithout, "one tries at a time");
        breaker.tried(later, false);
        assert_eq!(breaker.permit(later + SHORTEST), Permit::DoWithout, "twice as long");
        assert_eq!(breaker.permit(later + SHORTEST * 2), Permit::Try);
        breaker.tried(later + SHORTEST * 2, true);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn a_lost_trial_does_not_keep_it_half_open() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        assert_eq!(breaker.permit(now), Permit::Try);
        assert_eq!(breaker.permit(now + LOST), Permit::Try);
    }

    #[test]
    fn a_tenth_of_failures_is_borne() {
        let now = Instant::now();
        let mut breaker = closed(now);
        (0..1000).for_each(|n| breaker.record(now, n % 10 != 0));
        assert_eq!(breaker.state(), State::Closed);
    }

    proptest! {
        /// Whatever happens: at most one trial at a time, none before its time, and a Redis that works is asked again soon.
        #[test]
        fn holds_what_it_promises(steps in proptest::collection::vec((0..4_u8, 0..2000_u64, any::<bool>()), 1..200)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(now);
            let mut trial: Option<Instant> = None;
            for (step, millis, worked) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0 | 1 => {
                        let before = breaker.state();
                        let permit = breaker.permit(now);
                        match before {
                            State::Closed => prop_assert_eq!(permit, Permit::Ask),
                            State::Open(until) => prop_assert_eq!(permit == Permit::Try, now >= until),
                            State::HalfOpen(_) => prop_assert!(permit != Permit::Ask),
                        }
                        if permit == Permit::Try {
                            prop_assert!(trial.is_none_or(|since| now - since >= LOST));
                            trial = Some(now);
                        }
                    }
                    2 => breaker.record(now, worked),
                    _ => if trial.take().is_some() {
                        breaker.tried(now, worked);
                        prop_assert!(!matches!(breaker.state(), State::HalfOpen(_)));
                    },
                }
                if let State::Open(until) = breaker.state() {
                    prop_assert!(until <= now + LONGEST);
                }
            }
            now += LONGEST + LOST;
            if breaker.permit(now) == Permit::Try {
                breaker.tried(now, true);
            }
            prop_assert_eq!(breaker.permit(now), Permit::Ask);
        }
    }
}
