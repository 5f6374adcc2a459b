//! Properties that hold for every reading.

use proptest::prelude::*;
use slipway_crds::v1alpha1::GateVerdict;

use super::*;
use crate::rates::{RateCriteria, decide_verdict};
use crate::sequential::{ArmComparison, ArmEvents};

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..1e6_f64,
        2 => any::<f64>(),
        1 => prop::sample::select(vec![0.0, -0.0, 1.0, 0.5, 1e15, 1e16, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE]),
    ]
}

fn any_revision() -> impl Strategy<Value = String> {
    prop::sample::select(vec![CANDIDATE.to_owned(), STABLE.to_owned(), "other".to_owned()])
}

fn any_reading() -> impl Strategy<Value = GateReading> {
    let counts = (any_number(), any_number()).prop_map(|(bad, good)| GateCounts { bad, good });
    let buckets = prop::collection::vec((any_number(), any_number()), 0..6);
    prop_oneof![
        prop::collection::btree_map(any_revision(), counts, 0..3).prop_map(GateReading::Counts),
        prop::collection::btree_map(any_revision(), buckets, 0..3).prop_map(GateReading::Buckets),
        any_number().prop_map(GateReading::Value),
        Just(GateReading::NoData(String::new())),
        Just(GateReading::ProviderDown("x".repeat(3000))),
    ]
}

fn all_types() -> Vec<GateSpec> {
    gates(
        "
        - { name: errors, type: ErrorRate }
        - { name: latency, type: Latency }
        - { name: accuracy, type: Accuracy }
        - { name: score, type: PromQL, promQL: { query: '{{candidate}}', min: 0, consecutiveCount: 1 } }
        ",
    )
}

fn events(most: u32) -> impl Strategy<Value = ArmEvents> {
    (1..most)
        .prop_flat_map(|all| (0..=all, Just(all)))
        .prop_map(|(bad, all)| ArmEvents { bad: bad.into(), all: all.into() })
}

fn question() -> RateCriteria {
    RateCriteria {
        worth_catching: 0.02,
        min_events: 100.0,
        alpha: 0.00125,
        noun: "request",
        bad: "failed",
    }
}

fn badness(verdict: GateVerdict) -> u8 {
    match verdict {
        GateVerdict::Pass => 0,
        GateVerdict::Fail => 2,
        _ => 1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn never_panics_and_never_passes_on_nothing(readings in prop::collection::vec(any_reading(), 4), seconds in -100_i64..1_000_000, alpha in any_number()) {
        let gates = all_types();
        let names = ["errors", "latency", "accuracy", "score"];
        let evidence = evidence(seconds, names.into_iter().zip(readings.clone()));
        let judgement = judge_gates(&JudgeInput {
            gates: &gates, alpha, candidate: CANDIDATE, stable: STABLE, evidence: Some(&evidence), generation: 7,
            confirmed_time: confirmed_time(), now: after(seconds), previous: &[],
        });
        prop_assert_eq!(judgement.gates.len(), gates.len());
        for (status, reading) in judgement.gates.iter().zip(&readings) {
            prop_assert!(status.message.chars().count() <= 1024 && status.candidate.chars().count() <= 64);
            let has_both = match reading {
                GateReading::Counts(arms) => arms.contains_key(CANDIDATE) && arms.contains_key(STABLE),
                GateReading::Buckets(arms) => arms.contains_key(CANDIDATE) && arms.contains_key(STABLE),
                GateReading::Value(value) => value.is_finite(),
                GateReading::NoData(_) | GateReading::ProviderDown(_) => false,
            };
            let decides = matches!(status.verdict, GateVerdict::Pass | GateVerdict::Fail);
            prop_assert!(!decides || (has_both && seconds >= 0), "{:?} on {:?}", status, reading);
        }
    }

    #[test]
    fn one_more_failure_of_the_candidate_never_looks_better(candidate in events(3000), stable in events(30_000)) {
        prop_assume!(candidate.bad < candidate.all);
        let worse = ArmEvents { bad: candidate.bad + 1.0, ..candidate };
        let before = badness(decide_verdict(candidate, stable, &question()));
        let after = badness(decide_verdict(worse, stable, &question()));
        prop_assert!(after >= before, "{candidate:?} {stable:?}");
    }

    #[test]
    fn one_more_failure_of_stable_never_makes_the_candidate_look_worse(candidate in events(3000), stable in events(30_000)) {
        prop_assume!(stable.bad < stable.all);
        let worse = ArmEvents { bad: stable.bad + 1.0, ..stable };
        let before = badness(decide_verdict(candidate, stable, &question()));
        let after = badness(decide_verdict(candidate, worse, &question()));
        prop_assert!(after <= before, "{candidate:?} {stable:?}");
    }

    #[test]
    fn the_interval_holds_the_observed_difference_and_shrinks_with_alpha(candidate in events(3000), stable in events(30_000)) {
        let comparison = ArmComparison::new(candidate, stable);
        let (low, high) = comparison.interval(0.05);
        let (lower, higher) = comparison.interval(0.001);
        let between = -1.0 <= lower && lower <= low && low <= comparison.difference() + 1e-9
            && comparison.difference() <= high + 1e-9 && high <= higher && higher <= 1.0;
        prop_assert!(between, "{lower} {low} {} {high} {higher}", comparison.difference());
    }
}
