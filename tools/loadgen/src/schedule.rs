//! When requests are due: at a fixed rate, independent of the answers (an open loop).

use std::time::{Duration, Instant};

/// At most this many requests become due at one check, so that a stall of the machine does not
/// cause an unlimited burst.
const MOST_AT_ONCE: u64 = 1000;

/// The schedule of one rate. Times are computed from the start and a count, so that rounding errors
/// do not add up.
#[derive(Debug)]
pub(crate) struct RequestSchedule {
    started: Instant,
    rate: f64,
    count: u64,
}

impl RequestSchedule {
    /// A schedule whose first request is due now. A rate of 0 has none.
    pub(crate) fn new(now: Instant, rate: f64) -> Self {
        Self { started: now, rate, count: 0 }
    }

    /// When the next request is due; None when the rate is 0.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        // Also None when the time overflows: the rate is so small that it counts as 0.
        let since = (self.rate > 0.0)
            .then(|| Duration::try_from_secs_f64(self.count as f64 / self.rate).ok())?;
        self.started.checked_add(since?)
    }

    /// The due times of all requests that are due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Instant> {
        let mut due = Vec::new();
        while let Some(at) =
            self.next_due().filter(|at| *at <= now && (due.len() as u64) < MOST_AT_ONCE)
        {
            due.push(at);
            self.count += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_exact_however_seldom_it_is_looked_at() {
        let start = Instant::now();
        for step in [1, 7, 250] {
            let mut schedule = RequestSchedule::new(start, 300.0);
            let times: Vec<_> = (0..=10_000)
                .step_by(step)
                .map(|ms| start + Duration::from_millis(ms as u64))
                .collect();
            let due: Vec<_> = times.iter().flat_map(|now| schedule.take_due(*now)).collect();
            assert!((2_996..=3_001).contains(&due.len()), "{}", due.len());
            for (number, at) in due.iter().enumerate() {
                let exact = number as f64 / 300.0;
                assert!((at.duration_since(start).as_secs_f64() - exact).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_rate_that_is_almost_zero_does_not_overflow() {
        let start = Instant::now();
        let mut schedule = RequestSchedule::new(start, 1e-300);
        assert_eq!((schedule.take_due(start).len(), schedule.next_due()), (1, None));
    }

    #[test]
    fn nothing_is_due_at_rate_zero() {
        let start = Instant::now();
        let mut schedule = RequestSchedule::new(start, 0.0);
        assert_eq!(schedule.next_due(), None);
        assert!(schedule.take_due(start + Duration::from_secs(9)).is_empty());
    }

    #[test]
    fn a_stall_gives_no_unbounded_burst() {
        let start = Instant::now();
        let mut schedule = RequestSchedule::new(start, 1000.0);
        assert_eq!(schedule.take_due(start + Duration::from_secs(60)).len() as u64, MOST_AT_ONCE);
    }
}
