//! Decides whether look-ups pay: they do when they cost less time than hits save. Pure.
//!
//! While they do not, requests bypass the cache, except those of a fixed part of the inputs
//! ([`is_probe_input`](crate::key::is_probe_input)). These are looked up and stored as before, and
//! provide the measurements.

/// Weight of a new measurement, so that about the last few hundred count.
const WEIGHT: f64 = 1.0 / 256.0;
/// Look-ups and model runs that are measured before the first decision.
const MIN_LOOKUPS: u32 = 256;
const MIN_RUNS: u32 = 16;
/// A bypassed cache must pay by this factor before it is used again; otherwise the decision would
/// oscillate.
const RESUME_MARGIN: f64 = 1.25;

/// Whether a look-up of `cost` seconds that hits with probability `hit_ratio` pays when a hit saves
/// `saved` seconds.
pub fn lookup_pays(cost: f64, hit_ratio: f64, saved: f64) -> bool {
    cost <= hit_ratio * saved
}

/// An exponentially decaying average.
#[derive(Debug, Clone, Copy, Default)]
struct DecayingAverage {
    value: f64,
    count: u32,
}

impl DecayingAverage {
    fn record(&mut self, x: f64) {
        self.count = self.count.saturating_add(1);
        // The first values have equal weights, so that the very first one does not dominate for
        // long.
        let weight = (1.0 / f64::from(self.count)).max(WEIGHT);
        self.value += (x - self.value) * weight;
    }
}

/// The measurements of one cache tier, and the decision that follows from them.
#[derive(Debug, Clone, Default)]
pub struct BypassPolicy {
    cost: DecayingAverage,
    hits: DecayingAverage,
    saved_seconds: DecayingAverage,
    bypassing: bool,
}

impl BypassPolicy {
    /// Records a look-up: its duration in seconds and whether it hit.
    pub fn record_lookup(&mut self, seconds: f64, hit: bool) {
        self.cost.record(seconds);
        self.hits.record(f64::from(u8::from(hit)));
        self.decide();
    }

    /// Records the duration of a model run in seconds, including the wait in the queue: this is
    /// what a hit saves.
    pub fn record_run(&mut self, seconds: f64) {
        self.saved_seconds.record(seconds);
        self.decide();
    }

    /// Whether requests bypass this tier.
    pub fn is_bypassing(&self) -> bool {
        self.bypassing
    }

    /// Seconds that a hit saves on average.
    pub fn saved_seconds(&self) -> f64 {
        self.saved_seconds.value
    }

    fn decide(&mut self) {
        if self.hits.count < MIN_LOOKUPS || self.saved_seconds.count < MIN_RUNS {
            return;
        }
        let margin = if self.bypassing { RESUME_MARGIN } else { 1.0 };
        self.bypassing =
            !lookup_pays(self.cost.value * margin, self.hits.value, self.saved_seconds.value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn worth(cost: f64, hits_of_100: u32, saved: f64) -> BypassPolicy {
        let mut worth = BypassPolicy::default();
        for n in 0..2000 {
            worth.record_lookup(cost, n % 100 < hits_of_100);
            worth.record_run(saved);
        }
        worth
    }

    #[test]
    fn a_small_model_is_not_worth_a_look_into_redis() {
        assert!(worth(60e-6, 90, 10e-6).is_bypassing());
        assert!(!worth(60e-6, 90, 500e-6).is_bypassing());
        assert!(worth(60e-6, 2, 500e-6).is_bypassing(), "hardly ever a hit");
        assert!(!worth(2e-6, 90, 10e-6).is_bypassing(), "the process's own memory is");
    }

    #[test]
    fn nothing_is_decided_on_little() {
        let mut worth = BypassPolicy::default();
        for _ in 0..(MIN_LOOKUPS - 1) {
            worth.record_lookup(1.0, false);
            worth.record_run(1e-6);
        }
        assert!(!worth.is_bypassing());
        worth.record_lookup(1.0, false);
        assert!(worth.is_bypassing());
    }

    #[test]
    fn it_returns_when_the_world_changes() {
        let mut worth = worth(60e-6, 90, 10e-6);
        for n in 0..2000 {
            worth.record_lookup(60e-6, n % 100 < 90);
            worth.record_run(1e-3);
        }
        assert!(!worth.is_bypassing());
    }

    proptest! {
        #[test]
        fn pays_grows_with_hits_and_savings(cost in 0.0..1.0_f64, hits in 0.0..=1.0_f64, saved in 0.0..1.0_f64, more in 0.0..1.0_f64) {
            if lookup_pays(cost, hits, saved) {
                prop_assert!(lookup_pays(cost, (hits + more).min(1.0), saved));
                prop_assert!(lookup_pays(cost, hits, saved + more));
                prop_assert!(lookup_pays(cost * more, hits, saved));
            } else {
                prop_assert!(!lookup_pays(cost + more, hits, saved));
            }
        }

        #[test]
        fn averages_stay_within_what_was_noted(values in proptest::collection::vec(0.0..10.0_f64, 1..1000)) {
            let mut average = DecayingAverage::default();
            values.iter().for_each(|v| average.record(*v));
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            prop_assert!(average.value >= low - 1e-9 && average.value <= high + 1e-9);
        }
    }
}
