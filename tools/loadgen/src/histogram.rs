//! Latencies in buckets of constant relative width, so that quantiles over millions of requests
//! cost no memory.

/// Sub-buckets of each power of two: quantiles are right to 1/32.
const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
/// u32 microseconds: more than an hour.
const BUCKETS: usize = SUB * (32 - SUB_BITS as usize + 1);

/// A histogram of microseconds.
#[derive(Clone)]
pub(crate) struct LatencyHistogram {
    counts: Vec<u64>,
    total: u64,
    max: u32,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl LatencyHistogram {
    /// Counts one value.
    pub(crate) fn record(&mut self, micros: u32) {
        if let Some(count) = self.counts.get_mut(bucket_index(micros)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// The smallest value that at least this share of the values does not exceed, rounded up to its
    /// bucket; None without values.
    pub(crate) fn quantile(&self, share: f64) -> Option<u32> {
        if self.total == 0 {
            return None;
        }
        let wanted = ((share * self.total as f64).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(bucket_maximum(index).min(self.max));
            }
        }
        Some(self.max)
    }

    /// The largest value; None without values.
    pub(crate) fn max(&self) -> Option<u32> {
        (self.total > 0).then_some(self.max)
    }
}

/// Values below 32 have a bucket each; above, the bucket is the position of the highest bit and the
/// five bits below it.
fn bucket_index(value: u32) -> usize {
    let high = 31 - (value | 1).leading_zeros();
    if high < SUB_BITS {
        return value as usize;
    }
    let shift = high - SUB_BITS;
    (shift as usize + 1) * SUB + ((value >> shift) as usize - SUB)
}

/// The largest value of a bucket.
fn bucket_maximum(index: usize) -> u32 {
    if index < SUB {
        return index as u32;
    }
    let shift = (index / SUB - 1) as u32;
    let base = (index % SUB + SUB) as u64;
    (((base + 1) << shift) - 1).min(u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_close_above() {
        for value in (0..20_000).chain([1 << 20, (1 << 31) - 1, 1 << 31, u32::MAX - 1, u32::MAX]) {
            let top = bucket_maximum(bucket_index(value));
            assert!(top >= value, "{value}: {top}");
            assert!(u64::from(top) <= u64::from(value) + u64::from(value) / 32, "{value}: {top}");
        }
    }

    #[test]
    fn quantiles_of_known_values() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for value in 1..=1000 {
            histogram.record(value * 100);
        }
        for (share, exact) in [(0.5, 50_000.0), (0.95, 95_000.0), (0.99, 99_000.0)] {
            let found = f64::from(histogram.quantile(share).unwrap());
            assert!((exact..=exact * 1.04).contains(&found), "{share}: {found}");
        }
        assert_eq!(histogram.quantile(1.0), Some(100_000));
        assert_eq!(histogram.max(), Some(100_000));
    }
}
