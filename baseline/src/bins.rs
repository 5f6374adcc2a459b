//! Assigns values to bins.

use std::collections::HashMap;

use crate::{HistogramBins, MAX_NUMERIC_BINS};

const OUT_OF_RANGE: &str = "out_of_range";
const NAN: &str = "nan";
const OTHER: &str = "other";
const MISSING: &str = "missing";

impl HistogramBins {
    /// Number of bins.
    pub fn len(&self) -> usize {
        match self {
            Self::Numeric { edges, .. } => edges.len() + 4,
            Self::Categorical { values } => values.len() + 2,
        }
    }

    /// Always false: there is at least the bin `missing`.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Number of bins in the order of the values, that is without the special ones; 0 for
    /// categories, which have no order.
    pub fn ordered_len(&self) -> usize {
        match self {
            Self::Numeric { edges, .. } => edges.len() + 1,
            Self::Categorical { .. } => 0,
        }
    }

    /// Names of the bins by index: the values of the label `bin`. Numbers have two digits, so that
    /// they sort.
    pub fn names(&self) -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Numeric { edges, .. } => {
                let bins = (0..=edges.len()).map(|i| format!("{i:02}"));
                bins.chain(own(&[OUT_OF_RANGE, NAN, MISSING])).collect()
            }
            Self::Categorical { values } => {
                values.iter().cloned().chain(own(&[OTHER, MISSING])).collect()
            }
        }
    }

    /// Whether a category of this name is distinguishable from a special bin.
    pub(crate) fn is_category_name(value: &str) -> bool {
        !value.is_empty() && value != OTHER && value != MISSING && value.len() <= crate::MAX_NAME
    }
}

/// Finds bins; created once from [`HistogramBins`].
#[derive(Debug, Clone)]
pub enum HistogramBinner {
    /// Finds the bins of numbers.
    Numeric(Box<NumericBinner>),
    /// Finds the bins of names.
    Categorical(CategoricalBinner),
}

impl HistogramBinner {
    /// Creates the binner for `bins`, which must be valid.
    pub fn new(bins: &HistogramBins) -> Self {
        match bins {
            HistogramBins::Numeric { edges, low, high } => {
                Self::Numeric(Box::new(NumericBinner::new(edges, *low, *high)))
            }
            HistogramBins::Categorical { values } => {
                Self::Categorical(CategoricalBinner::new(values))
            }
        }
    }

    /// The bin of a number; a category is looked up by the number's text.
    pub fn number_bin(&self, value: f64) -> usize {
        match self {
            Self::Numeric(b) => b.index(value),
            Self::Categorical(b) => b.index(&value.to_string()),
        }
    }

    /// The bin of a text. With numeric bins the text is parsed: an empty text is missing, and any
    /// other text that is no number is NaN.
    pub fn text_bin(&self, value: &str) -> usize {
        match self {
            Self::Numeric(b) if value.is_empty() => b.missing_bin(),
            Self::Numeric(b) => b.index(value.trim().parse().unwrap_or(f64::NAN)),
            Self::Categorical(b) => b.index(value),
        }
    }

    /// The bin of a missing value.
    pub fn missing_bin(&self) -> usize {
        match self {
            Self::Numeric(b) => b.missing_bin(),
            Self::Categorical(b) => b.other + 1,
        }
    }
}

/// Finds the bin of a number without a branch that depends on it: all edges are compared, which the
/// compiler turns into a few vector instructions and the processor cannot mispredict.
#[derive(Debug, Clone)]
pub struct NumericBinner {
    /// Padded with infinity, which no number exceeds.
    edges: [f64; MAX_NUMERIC_BINS],
    low: f64,
    high: f64,
    in_range_bins: usize,
}

impl NumericBinner {
    /// Creates a binner; edges beyond the number that a valid file may have are left out.
    pub fn new(edges: &[f64], low: f64, high: f64) -> Self {
        let mut padded = [f64::INFINITY; MAX_NUMERIC_BINS];
        for (to, from) in padded.iter_mut().zip(edges) {
            *to = *from;
        }
        Self { edges: padded, low, high, in_range_bins: edges.len().min(MAX_NUMERIC_BINS) + 1 }
    }

    /// The bin of `x`.
    #[inline]
    pub fn index(&self, x: f64) -> usize {
        let mut above = 0_u64;
        for edge in &self.edges {
            above += u64::from(x > *edge);
        }
        // False for NaN as well.
        let inside = (x >= self.low) & (x <= self.high);
        let special = self.in_range_bins + usize::from(x.is_nan());
        if inside { above as usize } else { special }
    }

    fn missing_bin(&self) -> usize {
        self.in_range_bins + 2
    }
}

/// Finds the bin of a name.
#[derive(Debug, Clone)]
pub struct CategoricalBinner {
    indices: HashMap<String, usize>,
    other: usize,
}

impl CategoricalBinner {
    fn new(values: &[String]) -> Self {
        let places = values.iter().enumerate().map(|(i, v)| (v.clone(), i)).collect();
        Self { indices: places, other: values.len() }
    }

    /// The bin of `value`.
    pub fn index(&self, value: &str) -> usize {
        if value.is_empty() {
            self.other + 1
        } else {
            self.indices.get(value).copied().unwrap_or(self.other)
        }
    }
}
