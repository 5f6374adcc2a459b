//! Maps a score to the share of such scores that were right.

use serde::{Deserialize, Serialize};

use crate::{MAX_NUMERIC_BINS, NumericBinner};

/// A step function from the highest probability of a row to the accuracy that was observed for such
/// rows.
///
/// Isotonic: rows with higher confidence were never less often right. CBPE (see
/// docs/model-metrics.md) sums it over live rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalibrationCurve {
    /// Inner edges of the scores, ascending; bin `i` holds `edges[i-1] < score <= edges[i]`.
    pub edges: Vec<f64>,
    /// Observed accuracy of each bin, ascending.
    pub accuracy: Vec<f64>,
    /// Number of labelled reference rows of each bin.
    pub counts: Vec<u64>,
    /// Expected calibration error of the raw scores: the mean of |accuracy - score| over bins,
    /// weighted by rows.
    pub ece: f64,
}

impl CalibrationCurve {
    /// Fits the curve to scores and whether each row was right. `None` without rows.
    pub fn fit(rows: &[(f64, bool)], bins: usize) -> Option<Self> {
        let mut rows: Vec<_> =
            rows.iter().copied().filter(|(score, _)| score.is_finite()).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (n, bins) = (rows.len(), bins.clamp(1, MAX_NUMERIC_BINS));
        let last = rows.last()?.0;
        let mut edges: Vec<f64> =
            (1..bins).filter_map(|i| rows.get((i * n / bins).min(n - 1))).map(|r| r.0).collect();
        edges.dedup();
        edges.retain(|e| *e < last);
        let binner = NumericBinner::new(&edges, f64::MIN, f64::MAX);
        let mut sums = vec![(0_u64, 0_u64, 0.0_f64); edges.len() + 1];
        for (score, right) in rows {
            if let Some(bin) = sums.get_mut(binner.index(score)) {
                *bin = (bin.0 + 1, bin.1 + u64::from(right), bin.2 + score);
            }
        }
        let gap = |&(n, right, score): &(u64, u64, f64)| {
            if n == 0 { 0.0 } else { (right as f64 - score).abs() }
        };
        let ece = sums.iter().map(gap).sum::<f64>() / n as f64;
        let accuracy = fit_isotonic(
            &sums.iter().map(|(n, right, _)| (*n as f64, *right as f64)).collect::<Vec<_>>(),
        );
        Some(Self { edges, accuracy, counts: sums.into_iter().map(|s| s.0).collect(), ece })
    }

    /// Creates the binner whose result [`Self::bin_accuracy`] takes.
    pub fn binner(&self) -> NumericBinner {
        NumericBinner::new(&self.edges, f64::MIN, f64::MAX)
    }

    /// The accuracy of `bin`; `None` for a score that is no number.
    pub fn bin_accuracy(&self, bin: usize) -> Option<f64> {
        self.accuracy.get(bin).copied()
    }
}

/// Pool adjacent violators over (weight, sum).
fn fit_isotonic(bins: &[(f64, f64)]) -> Vec<f64> {
    let mut blocks: Vec<(f64, f64, usize)> = Vec::with_capacity(bins.len());
    for (weight, sum) in bins {
        let mut block = (*weight, *sum, 1);
        while let Some(before) =
            blocks.last().filter(|b| b.0 == 0.0 || block.0 == 0.0 || b.1 / b.0 > block.1 / block.0)
        {
            block = (before.0 + block.0, before.1 + block.1, before.2 + block.2);
            blocks.pop();
        }
        blocks.push(block);
    }
    let value = |b: &(f64, f64, usize)| if b.0 > 0.0 { b.1 / b.0 } else { 0.0 };
    blocks.iter().flat_map(|b| std::iter::repeat_n(value(b), b.2)).collect()
}
