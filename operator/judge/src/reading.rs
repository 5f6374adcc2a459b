//! From what Prometheus said to whole events. `increase()` extrapolates, so counts are fractional
//! and, after a scrape gap, may be a little inconsistent.

use std::collections::BTreeMap;

use crate::evidence::GateCounts;
use crate::sequential::ArmEvents;

/// How far, relative to the whole, a cumulative bucket may lie below its predecessor. Extrapolation
/// of series with equal timestamps keeps the order; small differences come from pods that were
/// scraped in between. More than this is a broken exporter.
const TOLERANCE: f64 = 0.01;

/// Counts above this are no counts: beyond it f64 does not hold every whole number.
const MAX_COUNT: f64 = 9.0e15;

/// Cumulative buckets of one arm: finite upper bounds, ascending, and the count of all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ArmHistogram {
    /// `(upper bound, events at or below it)`.
    pub(crate) finite: Vec<(f64, f64)>,
    /// All events.
    pub(crate) all: f64,
}

/// Events of `revision`; `None` when it has none at all. Fractions are cut off, which only ever
/// takes evidence away.
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

/// Whole events; `None` when there is not one.
pub(crate) fn whole_events(bad: f64, all: f64) -> Option<ArmEvents> {
    let all = all.floor();
    (all >= 1.0).then(|| ArmEvents { bad: bad.floor().clamp(0.0, all), all })
}

/// The histogram of `revision`; `None` when it has no events at all.
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
