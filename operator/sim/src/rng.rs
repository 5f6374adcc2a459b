//! Randomness with the same output on every platform and in every version: SplitMix64.

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct SeededRng(u64);

impl SeededRng {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to below 1.
    pub fn next_unit(&mut self) -> f64 {
        (self.next_number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.next_unit() < probability
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.saturating_sub(low).max(0).unsigned_abs() + 1;
        low + (self.next_number() % span) as i64
    }

    /// One item of a list.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next_number() % from.len() as u64) as usize]
    }

    /// How many of `n` events happen, each with this probability.
    pub fn binomial(&mut self, n: u64, probability: f64) -> u64 {
        if probability <= 0.0 {
            0
        } else {
            (0..n).filter(|_| self.chance(probability)).count() as u64
        }
    }
}
