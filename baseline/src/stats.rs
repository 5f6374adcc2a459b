//! Statistics of the difference between two sets of counts over the same bins. Formulas and the
//! reasons for the threshold: docs/model-metrics.md.

/// Lower shares are replaced by this, so that the logarithm of an empty bin is finite.
pub const SHARE_FLOOR: f64 = 1e-4;

/// A PSI below this is not reported as drift, however many rows prove that it is not chance: the
/// difference is too small to matter.
pub const EFFECT_FLOOR: f64 = 0.02;

/// 95 % quantiles of chi-square by degrees of freedom, from 1 (tables of the distribution).
const CHI_SQUARE_95: [f64; 30] = [
    3.841, 5.991, 7.815, 9.488, 11.070, 12.592, 14.067, 15.507, 16.919, 18.307, 19.675, 21.026,
    22.362, 23.685, 24.996, 26.296, 27.587, 28.869, 30.144, 31.410, 32.671, 33.924, 35.172, 36.415,
    37.652, 38.885, 40.113, 41.337, 42.557, 43.773,
];

/// 95 % quantile of the chi-square distribution; Wilson and Hilferty's cube beyond 30 degrees of
/// freedom (accurate to 0.1 %).
pub fn chi_square_95(freedom: usize) -> f64 {
    match freedom.checked_sub(1).map(|i| CHI_SQUARE_95.get(i)) {
        None => 0.0,
        Some(Some(exact)) => *exact,
        Some(None) => {
            let k = freedom as f64;
            let part = 2.0 / (9.0 * k);
            k * (1.0 - part + 1.644_853_627 * part.sqrt()).powi(3)
        }
    }
}

fn bin_shares(counts: &[u64]) -> impl Iterator<Item = f64> {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().map(move |n| *n as f64 / total)
}

/// Population stability index, sum of (q - p) ln(q / p); 0 for equal shares.
pub fn population_stability_index(reference: &[u64], live: &[u64]) -> f64 {
    let term = |(p, q): (f64, f64)| {
        let (p, q) = (p.max(SHARE_FLOOR), q.max(SHARE_FLOOR));
        (q - p) * (q / p).ln()
    };
    bin_shares(reference).zip(bin_shares(live)).map(term).sum()
}

/// Jensen-Shannon distance, the square root of the divergence to base 2: 0 for equal shares, 1 for
/// shares without a common bin.
pub fn jensen_shannon(reference: &[u64], live: &[u64]) -> f64 {
    let kl = |p: f64, m: f64| if p > 0.0 { p * (p / m).log2() } else { 0.0 };
    let term = |(p, q): (f64, f64)| {
        let m = f64::midpoint(p, q);
        f64::midpoint(kl(p, m), kl(q, m))
    };
    bin_shares(reference).zip(bin_shares(live)).map(term).sum::<f64>().max(0.0).sqrt()
}

/// Kolmogorov-Smirnov statistic over bins: the greatest difference of the cumulative shares. Only
/// for ordered bins.
pub fn kolmogorov_smirnov(reference: &[u64], live: &[u64]) -> f64 {
    let mut sum = 0.0_f64;
    bin_shares(reference).zip(bin_shares(live)).fold(0.0, |greatest, (p, q)| {
        sum += q - p;
        greatest.max(sum.abs())
    })
}

/// The comparison of two sets of counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriftStatistics {
    /// The [`population_stability_index`].
    pub psi: f64,
    /// The PSI from which the difference is drift: equal distributions exceed it in 5 of 100
    /// cases, and it is at least [`EFFECT_FLOOR`].
    pub threshold: f64,
    /// The expected PSI of equal distributions; higher values are worth a plot.
    pub noise: f64,
    /// The [`jensen_shannon`] distance.
    pub jensen_shannon: f64,
    /// The [`kolmogorov_smirnov`] statistic, where bins have an order.
    pub kolmogorov_smirnov: Option<f64>,
    /// Number of reference rows.
    pub reference: u64,
    /// Number of live rows.
    pub live: u64,
}

impl DriftStatistics {
    /// Compares two sets of counts; the first `ordered` bins are in order (0: none are).
    pub fn between(reference: &[u64], live: &[u64], ordered: usize) -> Self {
        let (n, m) = (reference.iter().sum::<u64>(), live.iter().sum::<u64>());
        let freedom = degrees_of_freedom(reference);
        let scale = if n == 0 || m == 0 { f64::INFINITY } else { 1.0 / n as f64 + 1.0 / m as f64 };
        let ks = || Some(kolmogorov_smirnov(reference.get(..ordered)?, live.get(..ordered)?));
        Self {
            psi: population_stability_index(reference, live),
            threshold: drift_threshold(freedom, scale, EFFECT_FLOOR),
            noise: if freedom == 0 { 0.0 } else { freedom as f64 * scale },
            jensen_shannon: jensen_shannon(reference, live),
            kolmogorov_smirnov: if ordered > 0 { ks() } else { None },
            reference: n,
            live: m,
        }
    }

    /// Whether the difference is drift. Never without rows.
    pub fn has_drifted(&self) -> bool {
        self.psi > self.threshold
    }
}

/// Number of non-empty bins of the reference, less one: an empty bin (`nan`, `missing`) has no
/// share that could vary by chance.
pub fn degrees_of_freedom(reference: &[u64]) -> usize {
    reference.iter().filter(|n| **n > 0).count().saturating_sub(1)
}

/// `max(chi2 * (1/n + 1/m), floor)`, where `scale` is `1/n + 1/m`.
pub fn drift_threshold(freedom: usize, scale: f64, floor: f64) -> f64 {
    if !scale.is_finite() {
        return f64::INFINITY;
    }
    (chi_square_95(freedom) * scale).max(floor)
}
