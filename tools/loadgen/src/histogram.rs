//! Latencies in buckets of constant relative width, so that quantiles over millions of requests
//! cost little memory.

use hdrhistogram::Histogram;

/// Significant decimal digits: quantiles are right to 1/128, and a histogram takes 27 kB.
const DIGITS: u8 = 2;

/// A histogram of microseconds.
#[derive(Clone, Default)]
pub(crate) struct LatencyHistogram {
    /// None before the first value.
    counts: Option<Histogram<u64>>,
    /// Exact, where `counts` knows a bucket.
    max: u32,
}

impl LatencyHistogram {
    pub(crate) fn record(&mut self, micros: u32) {
        if self.counts.is_none() {
            // It fails only for bounds and digits that make no sense.
            self.counts = Histogram::new_with_max(u32::MAX.into(), DIGITS).ok();
        }
        if let Some(counts) = &mut self.counts {
            counts.saturating_record(micros.into());
        }
        self.max = self.max.max(micros);
    }

    /// The smallest value that at least this share of the values does not exceed, rounded up to its
    /// bucket; None without values.
    pub(crate) fn quantile(&self, share: f64) -> Option<u32> {
        let found = self.counts.as_ref()?.value_at_quantile(share);
        Some(u32::try_from(found).unwrap_or(u32::MAX).min(self.max))
    }

    /// The largest value; None without values.
    pub(crate) fn max(&self) -> Option<u32> {
        self.counts.as_ref().map(|_| self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_close_above() {
        for value in (0..20_000).chain([1 << 20, (1 << 31) - 1, 1 << 31, u32::MAX - 1, u32::MAX]) {
            let mut histogram = LatencyHistogram::default();
            histogram.record(value);
            histogram.record(u32::MAX);
            let top = histogram.quantile(0.5).unwrap();
            assert!(top >= value, "{value}: {top}");
            assert!(u64::from(top) <= u64::from(value) + u64::from(value) / 100, "{value}: {top}");
        }
    }

    #[test]
    fn quantiles_of_known_values() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max()), (None, None));
        for value in 1..=1000 {
            histogram.record(value * 100);
        }
        for (share, exact) in [(0.5, 50_000.0), (0.95, 95_000.0), (0.99, 99_000.0)] {
            let found = f64::from(histogram.quantile(share).unwrap());
            assert!((exact..=exact * 1.01).contains(&found), "{share}: {found}");
        }
        assert_eq!(histogram.quantile(1.0), Some(100_000));
        assert_eq!(histogram.max(), Some(100_000));
    }
}
