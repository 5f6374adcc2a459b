//! Counters that many threads increment without waiting for each other.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// With more HTTP threads than this, some share a shard.
const SHARDS: usize = 16;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Shards are assigned to threads in turn, so up to `SHARDS` threads never share one.
    static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
}

/// The counts of an observer.
#[derive(Debug, Clone, Default)]
pub(super) struct ObservedCounts {
    /// Number of rows.
    pub(super) rows: u64,
    /// Number of rows without a prediction.
    pub(super) abstained: u64,
    /// All bins of all features, predictions, scores and margins.
    pub(super) bins: Vec<u64>,
    /// For each class: the sums of the calibrated probabilities of being right and of being wrong.
    pub(super) expected: Vec<(f64, f64)>,
    /// The sum of p (1 - p).
    pub(super) variance: f64,
}

impl ObservedCounts {
    /// Adds one to a bin.
    #[inline]
    pub(super) fn add(&mut self, bin: usize) {
        if let Some(count) = self.bins.get_mut(bin) {
            *count += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.abstained += other.abstained;
        self.variance += other.variance;
        self.bins.iter_mut().zip(&other.bins).for_each(|(a, b)| *a += b);
        self.expected
            .iter_mut()
            .zip(&other.expected)
            .for_each(|(a, b)| *a = (a.0 + b.0, a.1 + b.1));
    }
}

/// A lock on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct CountShard(Mutex<ObservedCounts>);

/// One set of counts for each of a few threads.
#[derive(Debug)]
pub(super) struct ShardedCounts {
    shards: Vec<CountShard>,
    zero: ObservedCounts,
}

impl ShardedCounts {
    pub(super) fn new(bins: usize, classes: usize) -> Self {
        let zero = ObservedCounts {
            bins: vec![0; bins],
            expected: vec![(0.0, 0.0); classes],
            ..ObservedCounts::default()
        };
        Self { shards: (0..SHARDS).map(|_| CountShard(Mutex::new(zero.clone()))).collect(), zero }
    }

    /// Updates this thread's shard. Only scrapes, and threads beyond the sixteenth, contend for its
    /// lock.
    pub(super) fn update(&self, add: impl FnOnce(&mut ObservedCounts)) {
        if let Some(shard) = self.shards.get(OWN.with(|own| *own)) {
            add(&mut shard.0.lock());
        }
    }

    /// The sum of all shards. Each count only grows, so later sums are never lower.
    pub(super) fn totals(&self) -> ObservedCounts {
        let mut totals = self.zero.clone();
        for shard in &self.shards {
            totals.merge(&shard.0.lock());
        }
        totals
    }
}
