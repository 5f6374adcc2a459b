//! Decides whether a model is so fast that a hand-over to another thread costs more than running
//! it. Pure.
//!
//! Two thread switches cost 10 to 20 us of CPU; a small tree model runs in 4 us. Such a model runs
//! on the thread that read its requests, and requests read in the same turn of the event loop run
//! as one batch. A slow run would keep that thread from its other connections. So only input sizes
//! that have proven fast run there, and no model whose graph has loops, because its cost may depend
//! on the values of a request.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

/// Longest run that is allowed on an event loop thread.
const MAX_INLINE_TIME: Duration = Duration::from_micros(100);
/// Weight of one run in the moving mean, as a shift: 1/8.
const MEAN_SHIFT: u32 = 3;

/// Measured run times of a model.
#[derive(Debug)]
pub(super) struct InlinePolicy {
    /// Whether the graph is free of loops.
    bounded: bool,
    /// Moving mean of the run time in nanoseconds; 0 before the first run.
    mean_nanos: AtomicU64,
    /// Size in bytes of the largest inputs that ran fast.
    proven_bytes: AtomicUsize,
}

impl InlinePolicy {
    pub(super) fn new(bounded: bool) -> Self {
        Self { bounded, mean_nanos: AtomicU64::new(0), proven_bytes: AtomicUsize::new(0) }
    }

    /// Records a run. A lost update when two threads race is harmless.
    pub(super) fn record(&self, bytes: usize, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mean = self.mean_nanos.load(Relaxed);
        let mean =
            if mean == 0 { nanos } else { mean - (mean >> MEAN_SHIFT) + (nanos >> MEAN_SHIFT) };
        self.mean_nanos.store(mean.max(1), Relaxed);
        if took <= MAX_INLINE_TIME {
            self.proven_bytes.fetch_max(bytes, Relaxed);
        } else if took > MAX_INLINE_TIME * 8 {
            // A thread that was not scheduled for a while looks the same; the workers soon prove
            // the size again.
            self.proven_bytes.fetch_min(bytes / 2, Relaxed);
        }
    }

    /// Whether inputs of `bytes` bytes may run on the event loop thread.
    pub(super) fn allows(&self, bytes: usize) -> bool {
        let room = self.allowed_bytes();
        room > 0 && bytes <= room
    }

    /// Largest inputs in bytes that may run on the event loop thread; 0 for none. It is twice the
    /// proven size, so that sizes can grow.
    pub(super) fn allowed_bytes(&self) -> usize {
        let mean = self.mean_nanos.load(Relaxed);
        let fast = self.bounded && mean > 0 && u128::from(mean) <= MAX_INLINE_TIME.as_nanos();
        if fast { self.proven_bytes.load(Relaxed).saturating_mul(2) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: Duration = Duration::from_micros(5);
    const SLOW: Duration = Duration::from_millis(5);

    #[test]
    fn sizes_that_were_fast_may_grow() {
        let pace = InlinePolicy::new(true);
        assert_eq!(pace.allowed_bytes(), 0, "nothing is known");
        assert!(!pace.allows(0), "not even a model without inputs");
        pace.record(100, FAST);
        assert_eq!(pace.allowed_bytes(), 200);
        assert!(pace.allows(200) && !pace.allows(201));
        pace.record(200, FAST);
        assert_eq!(pace.allowed_bytes(), 400);
        pace.record(50, FAST);
        assert_eq!(pace.allowed_bytes(), 400);
    }

    #[test]
    fn a_size_that_was_slow_may_not_and_may_again() {
        let pace = InlinePolicy::new(true);
        pace.record(400, FAST);
        pace.record(400, SLOW);
        assert_eq!(pace.allowed_bytes(), 0, "the mean is above the limit");
        for _ in 0..40 {
            pace.record(10, FAST);
        }
        assert_eq!(pace.allowed_bytes(), 400, "half of what was slow");
        pace.record(400, FAST);
        assert_eq!(pace.allowed_bytes(), 800);
    }

    #[test]
    fn a_graph_with_loops_never_may() {
        let pace = InlinePolicy::new(false);
        pace.record(8, FAST);
        assert_eq!(pace.allowed_bytes(), 0);
    }

    proptest! {
        /// A model whose runs are slow never runs inline, whatever it measured before.
        #[test]
        fn slow_models_stay_out(before in proptest::collection::vec((1..1000_usize, 1..100_u64), 0..50)) {
            let pace = InlinePolicy::new(true);
            for (bytes, micros) in before {
                pace.record(bytes, Duration::from_micros(micros));
            }
            for _ in 0..3 {
                pace.record(10, SLOW);
            }
            prop_assert_eq!(pace.allowed_bytes(), 0);
        }
    }
}
