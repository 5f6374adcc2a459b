//! Latency gates.

use slipway_crds::v1alpha1::GateVerdict;

use super::*;

const BOUNDS: [f64; 6] = [0.01, 0.025, 0.05, 0.1, 0.25, f64::INFINITY];

/// A histogram from the counts of its buckets.
fn histogram(counts: [f64; 6]) -> Vec<(f64, f64)> {
    let mut sum = 0.0;
    let cumulated = |(bound, count)| {
        sum += count;
        (bound, sum)
    };
    BOUNDS.into_iter().zip(counts).map(cumulated).collect()
}

fn latency(candidate: &[(f64, f64)], stable: &[(f64, f64)]) -> (GateVerdict, String) {
    let gate = gates("[{ name: latency, type: Latency }]");
    let judgement = run(&gate, Some(&evidence(60, [("latency", buckets(candidate, stable))])), &[]);
    (judgement.verdict, judgement.message)
}

// The 95th percentile of stable is 46 ms, and one and a half times that is 69 ms, so requests over
// 100 ms are slow.
const STABLE_SHAPE: [f64; 6] = [1000.0, 6000.0, 3000.0, 300.0, 60.0, 0.0];

#[test]
fn the_same_shape_passes() {
    let (verdict, message) =
        latency(&histogram([60.0, 360.0, 180.0, 18.0, 4.0, 0.0]), &histogram(STABLE_SHAPE));
    assert_eq!(verdict, GateVerdict::Pass, "{message}");
    assert!(message.contains("at the candidate (over 100 ms) slow"), "{message}");
}

#[test]
fn a_slow_tail_fails() {
    let (verdict, message) =
        latency(&histogram([50.0, 300.0, 150.0, 30.0, 90.0, 0.0]), &histogram(STABLE_SHAPE));
    assert_eq!(verdict, GateVerdict::Fail, "{message}");
}

#[test]
fn slower_within_the_allowed_ratio_passes() {
    // All requests are one bucket slower, up to 100 ms, and none is above: 1.5 times the latency is
    // allowed.
    let (verdict, message) =
        latency(&histogram([0.0, 60.0, 360.0, 200.0, 2.0, 0.0]), &histogram(STABLE_SHAPE));
    assert_eq!(verdict, GateVerdict::Pass, "{message}");
}

#[test]
fn a_candidate_beyond_the_last_bound_fails() {
    let (verdict, _) =
        latency(&histogram([0.0, 0.0, 0.0, 0.0, 0.0, 100.0]), &histogram(STABLE_SHAPE));
    assert_eq!(verdict, GateVerdict::Fail);
}

#[test]
fn when_stable_is_beyond_the_last_bound_the_last_bound_counts() {
    // A tenth of stable's requests exceeds the largest finite bound; "slower than +Inf" would never
    // fail.
    let stable = histogram([1000.0, 3000.0, 3000.0, 1500.0, 500.0, 1000.0]);
    let (verdict, message) = latency(&histogram([10.0, 30.0, 30.0, 15.0, 15.0, 200.0]), &stable);
    assert_eq!(verdict, GateVerdict::Fail, "{message}");
    assert!(message.contains("over 250 ms"), "{message}");
    let (verdict, message) =
        latency(&histogram([200.0, 600.0, 600.0, 300.0, 100.0, 200.0]), &stable);
    assert_eq!(verdict, GateVerdict::Pass, "{message}");
}

#[test]
fn a_broken_histogram_is_no_data() {
    let fine = histogram(STABLE_SHAPE);
    let broken: [(&str, Vec<(f64, f64)>); 6] = [
        ("in order", vec![(0.1, 5.0), (0.05, 6.0), (f64::INFINITY, 9.0)]),
        ("in order", vec![(f64::NAN, 5.0), (f64::INFINITY, 9.0)]),
        ("+Inf", vec![(0.1, 5.0)]),
        ("cumulative", vec![(0.1, 500.0), (0.25, 100.0), (f64::INFINITY, 600.0)]),
        ("counts NaN", vec![(0.1, f64::NAN), (f64::INFINITY, 9.0)]),
        ("counts -1", vec![(0.1, -1.0), (f64::INFINITY, 9.0)]),
    ];
    for (why, broken) in broken {
        for (candidate, stable) in [(&broken, &fine), (&fine, &broken)] {
            let (verdict, message) = latency(candidate, stable);
            assert_eq!(verdict, GateVerdict::NoData);
            assert!(message.contains(why), "{message}");
        }
    }
    let (verdict, message) = latency(&fine, &[(f64::INFINITY, 1000.0)]);
    assert_eq!(
        (verdict, message.as_str()),
        (GateVerdict::NoData, "latency: the histogram has no bucket but +Inf")
    );
    let (verdict, message) = latency(&[(0.07, 10.0), (f64::INFINITY, 1000.0)], &fine);
    assert_eq!(
        (verdict, message.as_str()),
        (GateVerdict::NoData, "latency: the histogram has no bucket for 0.1 s")
    );
}

#[test]
fn a_small_dent_of_extrapolation_is_forgiven() {
    let mut dented = histogram(STABLE_SHAPE);
    dented[3].1 = dented[2].1 - 3.0;
    assert_eq!(
        latency(&histogram([60.0, 360.0, 180.0, 18.0, 4.0, 0.0]), &dented).0,
        GateVerdict::Pass
    );
}

#[test]
fn an_arm_without_requests_is_named() {
    let none = histogram([0.0; 6]);
    let (verdict, message) = latency(&none, &histogram(STABLE_SHAPE));
    assert_eq!(
        (verdict, message.as_str()),
        (GateVerdict::NoData, "latency: no request reached the candidate")
    );
    let (verdict, message) = latency(&histogram(STABLE_SHAPE), &[]);
    assert_eq!(
        (verdict, message.as_str()),
        (GateVerdict::NoData, "latency: no request reached stable")
    );
}
