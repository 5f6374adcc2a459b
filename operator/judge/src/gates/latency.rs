//! Compares the share of slow requests, from cumulative histograms.
//!
//! A quantile of the candidate cannot be compared with one of stable by counts, but a share above a
//! fixed time can. That time is stable's own quantile times the allowed ratio, at least the minimum
//! time that counts as slow, and rounded up to a bound of the histogram: above that bound both arms
//! are counted exactly, without interpolation.

use jiff::Timestamp;
use slipway_contracts::metric_names;
use slipway_crds::v1alpha1::units::{SHARE_BOUNDS, check_share};
use slipway_crds::v1alpha1::{GateSpec, LatencyGate};

use super::{GateKind, field_path};
use crate::evidence::{EvidenceQuery, GateReading};
use crate::finding::GateFinding;
use crate::input::JudgeInput;
use crate::query::{GATEWAY_PODS, ROLES, SeriesSelector};
use crate::rates::{ComparedArms, OTHER_READING, RateCriteria, both_arms, judge_arms};
use crate::reading::{ArmHistogram, revision_histogram, whole_events};
use crate::sequential::ArmEvents;
use crate::text;

/// Gates of type Latency.
pub(super) struct LatencyKind;

impl GateKind for LatencyKind {
    fn default_name(&self) -> Option<&'static str> {
        Some("latency")
    }

    fn query(&self, _gate: &GateSpec, selector: &SeriesSelector<'_>) -> EvidenceQuery {
        EvidenceQuery::Buckets(format!(
            "sum by (revision, le) ({})",
            selector.increase(
                metric_names::GATEWAY_REQUEST_DURATION_BUCKET,
                GATEWAY_PODS,
                &format!(",{ROLES}"),
                "role, le"
            )
        ))
    }

    fn judge(
        &self,
        input: &JudgeInput<'_>,
        gate: &GateSpec,
        reading: &GateReading,
        alpha: f64,
        taken_at: Timestamp,
    ) -> GateFinding {
        let settings = gate.latency.clone().unwrap_or_default();
        let criteria = RateCriteria::new(
            &settings.max_increase,
            settings.min_requests,
            alpha,
            "request",
            "slow",
        );
        let arms = slow_arms(input, &settings, reading, &criteria);
        judge_arms(input, arms, &criteria, taken_at)
    }

    fn find_share_problem(&self, gate: &GateSpec) -> Option<String> {
        let settings = gate.latency.as_ref()?;
        let field = |name: &str| field_path(gate, &format!("latency.{name}"));
        check_share(&field("quantile"), &settings.quantile, (50.0, 99.9))
            .or_else(|| check_share(&field("maxRatio"), &settings.max_ratio, (100.0, 10_000.0)))
            .or_else(|| check_share(&field("maxIncrease"), &settings.max_increase, SHARE_BOUNDS))
    }
}

/// The slow requests of both arms.
fn slow_arms(
    input: &JudgeInput<'_>,
    settings: &LatencyGate,
    reading: &GateReading,
    criteria: &RateCriteria,
) -> Result<ComparedArms, String> {
    let GateReading::Buckets(buckets) = reading else { return Err(OTHER_READING.to_owned()) };
    let candidate = revision_histogram(buckets, input.candidate);
    let stable = revision_histogram(buckets, input.stable);
    let (candidate, stable) = both_arms(candidate, stable, criteria.noun)?;
    let bound = slow_threshold(&stable, settings)?;
    Ok(ComparedArms {
        candidate: slower_than(&candidate, bound)?,
        stable: slower_than(&stable, bound)?,
        detail: format!(" (over {})", text::format_seconds(bound)),
    })
}

/// The time above which a request counts as slow, in seconds: the smallest bound of the histogram
/// that is at least stable's quantile times the ratio. If only +Inf qualifies, the largest finite
/// bound is used, because otherwise no request could be slow.
pub(crate) fn slow_threshold(stable: &ArmHistogram, settings: &LatencyGate) -> Result<f64, String> {
    let quantile = settings.quantile.fraction().unwrap_or(0.95).clamp(0.01, 0.9999);
    let ratio = settings.max_ratio.fraction().unwrap_or(1.0).max(1.0);
    let largest = stable.finite.last().ok_or("the histogram has no bucket but +Inf")?.0;
    // Tolerates a rounding error, so that 1.5 times a quantile that lies on a bound does not skip a
    // bucket.
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

/// The quantile, interpolated linearly within its bucket like `histogram_quantile`; `None` if it
/// lies beyond the largest finite bound.
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

/// Events above `bound`, which is one of stable's. The same program counts both arms, so the
/// candidate's histogram has this bound, too.
pub(crate) fn slower_than(histogram: &ArmHistogram, bound: f64) -> Result<ArmEvents, String> {
    let at_most = histogram.finite.iter().find(|(b, _)| *b == bound).map(|(_, count)| *count);
    let at_most = at_most.ok_or_else(|| format!("the histogram has no bucket for {bound} s"))?;
    whole_events(histogram.all - at_most, histogram.all)
        .ok_or_else(|| "the histogram is empty".to_owned())
}
