//! Converts results of Prometheus to whole events. `increase()` extrapolates, so counts are
//! fractional and, after a scrape gap, may be slightly inconsistent.

use std::collections::BTreeMap;

use crate::evidence::GateCounts;
use crate::sequential::ArmEvents;

/// Tolerated difference, relative to the whole, by which a cumulative bucket may lie below its
/// predecessor. Extrapolation of series with equal timestamps keeps the order; small differences
/// come from pods that were scraped in between. A larger difference indicates a faulty exporter.
const TOLERANCE: f64 = 0.01;

/// Larger counts are invalid: f64 cannot represent every whole number beyond this one.
const MAX_COUNT: f64 = 9.0e15;

/// Cumulative buckets of one arm: finite upper bounds, ascending, and the total count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ArmHistogram {
    /// `(upper bound, events at or below it)`.
    pub(crate) finite: Vec<(f64, f64)>,
    /// Number of all events.
    pub(crate) all: f64,
}

/// Events of `revision`; `None` if there are none. Fractions are truncated, which can only reduce
/// the evidence.
pub(crate) fn revision_events(
    counts: &BTreeMap<String, GateCounts>,
    revision: &str,
) -> Result<Option<ArmEvents>, String> {
    let Some(GateCounts { bad, good }) = counts.get(revision).copied() else {
        return Ok(None);
    };
    for (count, what) in [(bad, "bad"), (good, "good")] {
        if !(0.0..=MAX_COUNT).contains(&count) {
            return Err(format!("the count of {what} events is {count}"));
        }
    }
    Ok(whole_events(bad, bad + good))
}

/// Whole events; `None` if there is not a single one.
pub(crate) fn whole_events(bad: f64, all: f64) -> Option<ArmEvents> {
    let all = all.floor();
    (all >= 1.0).then(|| ArmEvents { bad: bad.floor().clamp(0.0, all), all })
}

/// The histogram of `revision`; `None` if it has no events.
pub(crate) fn revision_histogram(
    buckets: &BTreeMap<String, Vec<(f64, f64)>>,
    revision: &str,
) -> Result<Option<ArmHistogram>, String> {
    let Some(buckets) = buckets.get(revision).filter(|list| !list.is_empty()) else {
        return Ok(None);
    };
    let mut finite = Vec::with_capacity(buckets.len());
    let mut last = (f64::NEG_INFINITY, 0.0_f64);
    let all = buckets.last().map_or(0.0, |(_, count)| *count);
    for &(bound, count) in buckets {
        if bound.is_nan() || bound <= last.0 {
            return Err("the buckets of the histogram are not in order".to_owned());
        }
        if !(0.0..=MAX_COUNT).contains(&count) {
            return Err(format!("a bucket of the histogram counts {count}"));
        }
        if last.1 - count > 1.0 + TOLERANCE * all {
            return Err("the buckets of the histogram are not cumulative".to_owned());
        }
        last = (bound, last.1.max(count));
        if bound.is_finite() {
            finite.push(last);
        }
    }
    if last.0 != f64::INFINITY {
        return Err("the histogram has no bucket for +Inf".to_owned());
    }
    Ok((last.1 >= 1.0).then_some(ArmHistogram { finite, all: last.1 }))
}
