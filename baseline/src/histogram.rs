//! Creates bins from reference values.

use std::collections::HashMap;

use crate::{HistogramBinner, HistogramBins, MAX_NUMERIC_BINS, MAX_VALUES, ReferenceHistogram};

impl ReferenceHistogram {
    /// Quantile bins of `values`, at most `bins` (2 to [`MAX_NUMERIC_BINS`]) and fewer where values
    /// repeat. A value is out of range when its distance from the reference values exceeds their
    /// range.
    pub fn numeric(values: &[f64], bins: usize) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let bins = match (sorted.first(), sorted.last()) {
            (Some(min), Some(max)) => {
                quantile_bins(&sorted, *min, *max, bins.clamp(2, MAX_NUMERIC_BINS))
            }
            // Only NaN: any number is out of range.
            _ => HistogramBins::Numeric {
                edges: vec![0.0],
                low: -f64::MIN_POSITIVE,
                high: f64::MIN_POSITIVE,
            },
        };
        let mut histogram = Self { counts: vec![0; bins.len()], bins };
        let binner = HistogramBinner::new(&histogram.bins);
        for value in values {
            histogram.add(binner.number_bin(*value));
        }
        histogram
    }

    /// Bins of the `most` most frequent values; ties are ordered by name, so that the same rows
    /// give the same file.
    pub fn categorical<'a>(values: impl Iterator<Item = &'a str> + Clone, most: usize) -> Self {
        let mut counts = HashMap::<&str, u64>::new();
        for value in values.clone().filter(|v| HistogramBins::is_category_name(v)) {
            *counts.entry(value).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        counts.truncate(most.clamp(1, MAX_VALUES));
        let bins = HistogramBins::Categorical {
            values: counts.into_iter().map(|(v, _)| v.to_owned()).collect(),
        };
        let mut histogram = Self { counts: vec![0; bins.len()], bins };
        let binner = HistogramBinner::new(&histogram.bins);
        for value in values {
            histogram.add(binner.text_bin(value));
        }
        histogram
    }

    fn add(&mut self, bin: usize) {
        if let Some(count) = self.counts.get_mut(bin) {
            *count += 1;
        }
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The share of each bin; 0 everywhere without values.
    pub fn shares(&self) -> Vec<f64> {
        let total = self.total().max(1) as f64;
        self.counts.iter().map(|n| *n as f64 / total).collect()
    }
}

fn quantile_bins(sorted: &[f64], min: f64, max: f64, bins: usize) -> HistogramBins {
    let n = sorted.len();
    let at = |i: usize| sorted.get((i * n / bins).min(n - 1)).copied();
    let mut edges: Vec<f64> = (1..bins).filter_map(at).collect();
    edges.dedup();
    // A bin above the greatest value would stay empty.
    edges.retain(|e| *e < max);
    if edges.first().is_none_or(|e| *e > min)
        && edges.len() + 1 < bins
        && minimum_fills_bin(sorted, min, bins)
    {
        edges.insert(0, min);
    }
    if min == max {
        // Values less than, equal to and greater than a constant are three bins.
        edges = vec![min.next_down(), min];
    }
    let width = if max > min { max - min } else { min.abs().max(1.0) };
    // The range of the widest floats overflows.
    let (low, high) = ((min - width).max(f64::MIN), (max + width).min(f64::MAX));
    HistogramBins::Numeric { edges, low, high }
}

/// Whether the least value alone fills a bin.
fn minimum_fills_bin(sorted: &[f64], min: f64, bins: usize) -> bool {
    sorted.iter().take_while(|x| **x == min).count() * bins >= sorted.len()
}
