//! The brake: a hard limit on a candidate's own failures, enforced at once by each gateway pod
//! alone.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use slipway_contracts::state::BrakeTrip;

use crate::config::BrakeConfig;

/// Maximum window size in requests: one bit each.
pub const MAX_WINDOW: u32 = u64::BITS;

/// The brake of one revision. It outlives route tables and generations.
#[derive(Debug, Default)]
pub struct ArmBrake {
    tripped: AtomicBool,
    counts: Mutex<BrakeCounts>,
}

#[derive(Debug, Default)]
struct BrakeCounts {
    generation: i64,
    failures: u64,
    requests: u64,
    /// The last [`MAX_WINDOW`] requests, newest in bit 0; a set bit is a failure.
    recent: u64,
    trip: Option<BrakeTrip>,
}

impl ArmBrake {
    /// Whether the candidate gets no traffic.
    pub fn is_tripped(&self) -> bool {
        self.tripped.load(Ordering::Acquire)
    }

    pub fn trip(&self) -> Option<BrakeTrip> {
        self.counts.lock().trip.clone()
    }

    /// Records one request that counts for the brake; returns the trip when this request trips it.
    pub fn observe(
        &self,
        revision: &str,
        failed: bool,
        config: BrakeConfig,
        at: Timestamp,
    ) -> Option<BrakeTrip> {
        let mut ledger = self.counts.lock();
        ledger.requests += 1;
        ledger.failures += u64::from(failed);
        ledger.recent = ledger.recent << 1 | u64::from(failed);
        if !failed || ledger.trip.is_some() || !ledger.exceeds_threshold(config) {
            return None;
        }
        let trip = ledger.build_trip(revision, config, at);
        ledger.trip = Some(trip.clone());
        self.tripped.store(true, Ordering::Release);
        Some(trip)
    }

    /// Applies the weights in force, and releases the brake when the operator wrote them with
    /// knowledge of the trip.
    ///
    /// One newer generation may have been in transit when the brake tripped, so the next generation
    /// releases it only if it removes the weight. The one after that was written by an operator
    /// that had this gateway's report, or that aborted without waiting for it.
    pub fn apply_generation(&self, generation: i64, permille: u32) {
        let mut ledger = self.counts.lock();
        if generation == ledger.generation {
            return;
        }
        let keep = ledger.trip.take().filter(|trip| {
            let newer_by = generation.saturating_sub(trip.generation);
            newer_by <= 0 || (newer_by == 1 && permille > 0)
        });
        self.tripped.store(keep.is_some(), Ordering::Release);
        *ledger = BrakeCounts { generation, trip: keep, ..BrakeCounts::default() };
    }
}

impl BrakeCounts {
    fn exceeds_threshold(&self, config: BrakeConfig) -> bool {
        let (failed, seen) = self.recent_failures(config.window);
        config.enabled
            && self.failures >= config.min_failures
            && failed * 1_000_000 >= seen.saturating_mul(config.failure_millionths)
    }

    /// Number of failures among the newest requests, and the number of these requests.
    fn recent_failures(&self, window: u32) -> (u64, u64) {
        let window = window.clamp(1, MAX_WINDOW);
        let failed = (self.recent & (u64::MAX >> (MAX_WINDOW - window))).count_ones();
        (u64::from(failed), self.requests.min(u64::from(window)))
    }

    fn build_trip(&self, revision: &str, config: BrakeConfig, at: Timestamp) -> BrakeTrip {
        let (failed, seen) = self.recent_failures(config.window);
        BrakeTrip {
            revision: revision.to_owned(),
            generation: self.generation,
            reason: format!("{failed} of the last {seen} requests to the candidate failed"),
            failures: self.failures,
            requests: self.requests,
            at,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: BrakeConfig = BrakeConfig::DEFAULT;

    fn feed(brake: &ArmBrake, failures: impl IntoIterator<Item = bool>) -> Option<BrakeTrip> {
        failures.into_iter().fold(None, |trip, failed| {
            trip.or(brake.observe("rev", failed, CONFIG, Timestamp::UNIX_EPOCH))
        })
    }

    fn at(generation: i64) -> ArmBrake {
        let brake = ArmBrake::default();
        brake.apply_generation(generation, 500);
        brake
    }

    #[test]
    fn a_candidate_that_always_fails_is_out_after_ten() {
        let brake = at(3);
        assert_eq!(feed(&brake, [true; 9]), None);
        let trip = feed(&brake, [true]).unwrap();
        assert_eq!((trip.generation, trip.failures, trip.requests), (3, 10, 10));
        assert_eq!(trip.reason, "10 of the last 10 requests to the candidate failed");
        assert!(brake.is_tripped());
    }

    #[test]
    fn a_long_good_past_does_not_hide_a_bad_present() {
        let brake = at(1);
        assert_eq!(feed(&brake, [false; 10_000]), None);
        assert_eq!(feed(&brake, [true; 24]), None);
        assert!(feed(&brake, [true]).is_some(), "25 of the last 50");
    }

    #[test]
    fn few_failures_among_many_do_nothing() {
        let brake = at(1);
        assert_eq!(feed(&brake, (0..10_000).map(|n| n % 3 == 0)), None);
    }

    #[test]
    fn the_window_and_the_rate_are_those_of_the_spec() {
        let brake = at(1);
        let config =
            BrakeConfig { min_failures: 1, window: 64, failure_millionths: 15_000, ..CONFIG };
        let observe = |failed| brake.observe("rev", failed, config, Timestamp::UNIX_EPOCH);
        assert!((0..1000).all(|_| observe(false).is_none()));
        let trip = observe(true).expect("1 of 64 is more than 1.5 %");
        assert_eq!(trip.reason, "1 of the last 64 requests to the candidate failed");
    }

    #[test]
    fn it_can_be_off() {
        let brake = at(1);
        let off = BrakeConfig { enabled: false, min_failures: 1, ..CONFIG };
        assert!((0..100).all(|_| brake.observe("rev", true, off, Timestamp::UNIX_EPOCH).is_none()));
    }

    #[test]
    fn a_generation_that_was_on_its_way_keeps_the_brake_and_a_later_one_releases_it() {
        let brake = at(12);
        feed(&brake, [true; 10]);
        brake.apply_generation(12, 500);
        assert!(brake.is_tripped(), "the same generation again");
        brake.apply_generation(13, 250);
        assert!(brake.is_tripped(), "written before the operator knew");
        brake.apply_generation(14, 50);
        assert!(!brake.is_tripped(), "a retry");
    }

    #[test]
    fn taking_the_weight_away_releases_it() {
        let brake = at(12);
        feed(&brake, [true; 10]);
        brake.apply_generation(13, 0);
        assert!(!brake.is_tripped());
    }

    #[test]
    fn an_older_generation_does_not_release_it() {
        let brake = at(12);
        feed(&brake, [true; 10]);
        brake.apply_generation(11, 0);
        assert!(brake.is_tripped());
    }

    proptest! {
        #[test]
        fn it_trips_exactly_when_both_bounds_are_met(failures in proptest::collection::vec(any::<bool>(), 0..300)) {
            let brake = at(1);
            let mut seen: Vec<bool> = Vec::new();
            for failed in failures {
                seen.push(failed);
                let window = &seen[seen.len().saturating_sub(50)..];
                let share_met = window.iter().filter(|f| **f).count() * 2 >= window.len();
                let due = failed && share_met && seen.iter().filter(|f| **f).count() >= 10;
                let trip = brake.observe("rev", failed, CONFIG, Timestamp::UNIX_EPOCH);
                prop_assert_eq!(trip.is_some(), due);
                if due { break; }
            }
        }
    }
}
