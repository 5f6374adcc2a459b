//! Slow requests, from cumulative histograms.
//!
//! A quantile of the candidate cannot be compared with one of stable by counts; a share above a
//! fixed time can. The time is stable's own quantile, times the allowed ratio, and at least the
//! time that is slow to anybody, rounded up to a bound of the histogram: above that bound both arms
//! are counted exactly, without interpolation.

use slipway_crds::v1alpha1::LatencyGate;

use crate::reading::{ArmHistogram, whole_events};
use crate::sequential::ArmEvents;

/// The time above which a request is slow, in seconds: the smallest bound of the histogram that is
/// at least stable's quantile times the ratio. When there is none but +Inf, nothing could ever be
/// slow, so the largest finite bound is taken instead.
pub(crate) fn slow_threshold(stable: &ArmHistogram, settings: &LatencyGate) -> Result<f64, String> {
    let quantile = settings.quantile.fraction().unwrap_or(0.95).clamp(0.01, 0.9999);
    let ratio = settings.max_ratio.fraction().unwrap_or(1.0).max(1.0);
    let largest = stable.finite.last().ok_or("the histogram has no bucket but +Inf")?.0;
    // A hair is forgiven, so that 1.5 times a quantile that lies on a bound does not skip a bucket
    // by a rounding error.
    let floor = f64::from(settings.min_slow_milliseconds.max(0)) / 1000.0;
    let wanted = (interpolate_quantile(stable, quantile).unwrap_or(largest) * ratio).max(floor)
        * (1.0 - 1e-9);
    Ok(stable
        .finite
        .iter()
        .map(|(bound, _)| *bound)
        .find(|bound| *bound >= wanted)
        .unwrap_or(largest))
}

/// The quantile, linear within its bucket as `histogram_quantile` has it; `None` when it lies
/// beyond the largest finite bound.
fn interpolate_quantile(histogram: &ArmHistogram, quantile: f64) -> Option<f64> {
    let rank = quantile * histogram.all;
    let mut below = (0.0, 0.0);
    for &(bound, count) in &histogram.finite {
        if count >= rank {
            let inside = count - below.1;
            let share = if inside > 0.0 { (rank - below.1) / inside } else { 1.0 };
            return Some(below.0 + (bound - below.0) * share);
        }
        below = (bound, count);
    }
    None
}

/// Events above `bound`, which is one of stable's; both arms are counted by the same program, so
/// the candidate has it too.
pub(crate) fn slower_than(histogram: &ArmHistogram, bound: f64) -> Result<ArmEvents, String> {
    let at_most = histogram.finite.iter().find(|(b, _)| *b == bound).map(|(_, count)| *count);
    let at_most = at_most.ok_or_else(|| format!("the histogram has no bucket for {bound} s"))?;
    whole_events(histogram.all - at_most, histogram.all)
        .ok_or_else(|| "the histogram is empty".to_owned())
}
