//! How long a revision takes to answer, as this gateway observes it, and what "in time" means by
//! that.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A time-out of the candidate in 99th percentiles of stable: so far beyond stable's usual time
/// that an equally good candidate hardly ever reaches it, and that one which is slower within
/// reason is left to the judge.
const TRY_TIMEOUT_FACTOR: u32 = 4;
/// No time-out by observation is shorter: first requests to new pods may be slow for reasons that
/// pass.
const MIN_TRY_TIMEOUT: Duration = Duration::from_millis(500);
/// What is taken for stable's time while too little was observed.
const COLD_LATENCY: Duration = Duration::from_secs(1);
/// Fewest observations that say anything; below 100 the 99th percentile is the longest of them.
const MIN_OBSERVATIONS: u64 = 20;

/// Buckets for each doubling, as a power of two: the width of a bucket is at most a quarter of its
/// lower bound.
const SUB_BUCKET_BITS: u32 = 2;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKET_BITS;
/// Up to 2^32 microseconds, more than an hour.
const BUCKETS: usize = 124;
/// At so many observations all counts are halved, so that the newer ones weigh more. By number and
/// not by time: a revision that gets no requests for a while is as fast as it was.
const HALVING_INTERVAL: u32 = 2048;
/// The percentile is worked out anew at every one of the first observations, then once in so many.
const REFRESH_INTERVAL: u32 = 32;

/// Times of one revision's answers: a histogram of fixed size. Recording takes no lock and
/// allocates nothing; reading the percentile is one load.
#[derive(Debug)]
pub struct ArmLatency {
    buckets: [AtomicU32; BUCKETS],
    total: AtomicU32,
    /// In microseconds; 0 while too little was observed.
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
    /// Records an answer.
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

    /// Records that there was no answer within this time. It says something only beyond the
    /// percentile that is known.
    pub fn record_at_least(&self, waited: Duration) {
        if self.p99().is_none_or(|p99| waited > p99) {
            self.record(waited);
        }
    }

    /// The 99th percentile, rounded up to the bound of a bucket; none while too little was
    /// observed.
    pub fn p99(&self) -> Option<Duration> {
        let micros = self.p99.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Others may record meanwhile: what they add is kept.
    fn halve(&self) {
        let mut removed = 0;
        for bucket in &self.buckets {
            // Rounded down, so that a single outlier is forgotten.
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

/// In microseconds.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket + 1;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    (SUB_BUCKETS + bucket % SUB_BUCKETS + 1) << shift
}

/// What "in time" means for both arms of a ModelDeployment, when a request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTiming {
    /// After this time stable is asked, too, and an answer that takes longer is counted as such,
    /// whichever arm it is of. None where the shield asks nobody.
    pub try_timeout: Option<Duration>,
    /// Who waited for less than this has not waited for long enough to blame an arm: stable's 99th
    /// percentile.
    pub blame_threshold: Duration,
    /// Nearly the ModelDeployment's own time-out: what is left of it after a body was read. Who
    /// has set a shorter one has not seen all that the arm promises.
    pub full_timeout: Duration,
}

impl RequestTiming {
    /// By stable's 99th percentile and by the ModelDeployment's time-out; `shield` is the
    /// configured time-out of the candidate, or none where one is to be found, and absent where no
    /// candidate is shielded.
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
        // Those who waited longer for nothing show that stable is slower than it was.
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
