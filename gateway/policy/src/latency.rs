//! The answer times of a revision, as this gateway observes them, and the resulting time limits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The candidate's time-out as a multiple of stable's 99th percentile: far enough beyond stable's
/// usual time that an equally good candidate hardly ever reaches it, and that the judge decides
/// about one that is moderately slower.
const TRY_TIMEOUT_FACTOR: u32 = 4;
/// Lower limit of derived time-outs: the first requests to new pods may be slow for temporary
/// reasons.
const MIN_TRY_TIMEOUT: Duration = Duration::from_millis(500);
/// Assumed 99th percentile of stable before enough observations exist.
const COLD_LATENCY: Duration = Duration::from_secs(1);
/// Minimum number of observations; below 100 the 99th percentile is the maximum.
const MIN_OBSERVATIONS: u64 = 20;

/// Buckets per doubling, as a power of two: the width of a bucket is at most a quarter of its lower
/// bound.
const SUB_BUCKET_BITS: u32 = 2;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKET_BITS;
/// Up to 2^32 microseconds, more than an hour.
const BUCKETS: usize = 124;
/// After this number of observations all counts are halved, so that newer ones have more weight. By
/// number and not by time, because a revision without requests does not become slower or faster.
const HALVING_INTERVAL: u32 = 2048;
/// The percentile is recomputed at each of the first observations, then once per this number.
const REFRESH_INTERVAL: u32 = 32;

/// Answer times of one revision: a histogram of fixed size. Recording takes no lock and allocates
/// nothing; reading the percentile is one load.
#[derive(Debug)]
pub struct ArmLatency {
    buckets: [AtomicU32; BUCKETS],
    total: AtomicU32,
    /// In microseconds; 0 before enough observations exist.
    p99: AtomicU64,
}

impl Default for ArmLatency {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            total: AtomicU32::new(0),
            p99: AtomicU64::new(0),
        }
    }
}

impl ArmLatency {
    /// Records the time of an answer.
    pub fn record(&self, took: Duration) {
        self.buckets[bucket_index(took)].fetch_add(1, Ordering::Relaxed);
        let total = self.total.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if total.is_multiple_of(HALVING_INTERVAL) {
            self.halve();
            self.refresh();
        } else if total <= 2 * REFRESH_INTERVAL || total.is_multiple_of(REFRESH_INTERVAL) {
            self.refresh();
        }
    }

    /// Records that there was no answer within this time. It is used only if it exceeds the current
    /// percentile.
    pub fn record_at_least(&self, waited: Duration) {
        if self.p99().is_none_or(|p99| waited > p99) {
            self.record(waited);
        }
    }

    /// The 99th percentile, rounded up to the bound of a bucket; `None` before enough observations
    /// exist.
    pub fn p99(&self) -> Option<Duration> {
        let micros = self.p99.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Halves all counts. Concurrent recordings are kept.
    fn halve(&self) {
        let mut removed = 0;
        for bucket in &self.buckets {
            // Rounded down, so that a single outlier disappears.
            let halved =
                bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count / 2));
            removed += halved.map_or(0, |before| before - before / 2);
        }
        self.total.fetch_sub(removed, Ordering::Relaxed);
    }

    fn refresh(&self) {
        let count = |bucket: &AtomicU32| u64::from(bucket.load(Ordering::Relaxed));
        let total: u64 = self.buckets.iter().map(count).sum();
        if total < MIN_OBSERVATIONS {
            return;
        }
        let mut above = 0;
        let index = self.buckets.iter().rposition(|bucket| {
            above += count(bucket);
            above > total / 100
        });
        self.p99.store(index.map_or(0, upper_bound), Ordering::Relaxed);
    }
}

fn bucket_index(took: Duration) -> usize {
    let micros = took.as_micros().min(u128::from(u32::MAX)) as u64;
    if micros < SUB_BUCKETS {
        return micros as usize;
    }
    let exponent = micros.ilog2();
    let sub = (micros >> (exponent - SUB_BUCKET_BITS)) & (SUB_BUCKETS - 1);
    (u64::from(exponent - SUB_BUCKET_BITS + 1) * SUB_BUCKETS + sub) as usize
}

/// Upper bound of a bucket in microseconds.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket + 1;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    (SUB_BUCKETS + bucket % SUB_BUCKETS + 1) << shift
}

/// The time limits for both arms of a ModelDeployment, fixed at the start of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTiming {
    /// After this time the request is sent to stable, too, and a later answer of either arm counts
    /// as too slow. `None` when no candidate is shielded.
    pub try_timeout: Option<Duration>,
    /// A client that waited for less than this has not waited long enough to blame an arm:
    /// stable's 99th percentile.
    pub blame_threshold: Duration,
    /// Nearly the ModelDeployment's own time-out: what is left of it after a body was read. A
    /// client with a shorter deadline has not waited for all the time that the arm may take.
    pub full_timeout: Duration,
}

impl RequestTiming {
    /// Derives the limits from stable's 99th percentile and the ModelDeployment's time-out.
    /// `shield` is `None` when no candidate is shielded, and `Some(None)` when the candidate's
    /// time-out is not configured but derived.
    pub fn new(
        stable: Option<Duration>,
        timeout: Duration,
        shield: Option<Option<Duration>>,
    ) -> Self {
        let found =
            || stable.map_or(COLD_LATENCY, |p99| MIN_TRY_TIMEOUT.max(p99 * TRY_TIMEOUT_FACTOR));
        let whole = timeout * 9 / 10;
        Self {
            try_timeout: shield.map(|configured| configured.unwrap_or_else(found)),
            blame_threshold: stable.unwrap_or(COLD_LATENCY).min(whole),
            full_timeout: whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_few_observations_say_nothing() {
        let latency = ArmLatency::default();
        (0..MIN_OBSERVATIONS - 1).for_each(|_| latency.record(millis(10)));
        assert_eq!(latency.p99(), None);
        latency.record(millis(10));
        let p99 = latency.p99().unwrap();
        assert!((millis(10)..=millis(13)).contains(&p99), "{p99:?}");
    }

    #[test]
    fn one_in_a_hundred_is_above_the_percentile() {
        let latency = ArmLatency::default();
        for index in 0..1000 {
            latency.record(millis(if index % 125 == 0 { 3000 } else { 10 }));
        }
        assert!(latency.p99().unwrap() < millis(13));
        (0..10).for_each(|_| latency.record(millis(3000)));
        (0..REFRESH_INTERVAL).for_each(|_| latency.record(millis(3000)));
        assert!(latency.p99().unwrap() >= millis(3000));
    }

    #[test]
    fn what_is_new_outweighs_what_is_old() {
        let latency = ArmLatency::default();
        (0..20 * HALVING_INTERVAL).for_each(|_| latency.record(millis(2000)));
        (0..7 * HALVING_INTERVAL).for_each(|_| latency.record(millis(5)));
        assert!(latency.p99().unwrap() < millis(7), "{:?}", latency.p99());
        assert!(latency.total.load(Ordering::Relaxed) < HALVING_INTERVAL);
    }

    #[test]
    fn who_did_not_wait_long_says_nothing() {
        let latency = ArmLatency::default();
        (0..100).for_each(|_| latency.record(millis(100)));
        let before = latency.p99();
        (0..500).for_each(|_| latency.record_at_least(millis(1)));
        assert_eq!(latency.p99(), before);
        // Longer waits without an answer show that stable has become slower.
        (0..REFRESH_INTERVAL).for_each(|_| latency.record_at_least(millis(900)));
        assert!(latency.p99().unwrap() >= millis(900));
    }

    #[test]
    fn a_pace_comes_from_stable_and_from_no_client() {
        let timeout = Duration::from_secs(30);
        let cold = RequestTiming::new(None, timeout, Some(None));
        assert_eq!((cold.try_timeout, cold.blame_threshold), (Some(COLD_LATENCY), COLD_LATENCY));
        let fast = RequestTiming::new(Some(millis(10)), timeout, Some(None));
        assert_eq!((fast.try_timeout, fast.blame_threshold), (Some(MIN_TRY_TIMEOUT), millis(10)));
        let slow = RequestTiming::new(Some(millis(2000)), timeout, Some(None));
        assert_eq!((slow.try_timeout, slow.blame_threshold), (Some(millis(8000)), millis(2000)));
        let configured = RequestTiming::new(Some(millis(2000)), timeout, Some(Some(millis(200))));
        assert_eq!(configured.try_timeout, Some(millis(200)));
        assert_eq!(
            RequestTiming::new(None, millis(1000), None),
            RequestTiming {
                try_timeout: None,
                blame_threshold: millis(900),
                full_timeout: millis(900)
            }
        );
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_times_and_is_narrow(micros in 0u64..=u64::from(u32::MAX)) {
            let index = bucket_index(Duration::from_micros(micros));
            prop_assert!(index < BUCKETS);
            let bound = upper_bound(index);
            prop_assert!(micros < bound, "{} {}", micros, bound);
            prop_assert!(bound <= micros + micros / 4 + 1, "{} {}", micros, bound);
            prop_assert!(index == 0 || upper_bound(index - 1) <= micros);
        }
    }
}
