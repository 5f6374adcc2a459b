//! The regression catalogue, part about evidence (`b02` to `b06`); see `catalogue.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::World;
use common::rollouts::canary;
use serde_json::json;
use slipway_crds::v1alpha1::{GateVerdict, RolloutStage};
use slipway_judge::evidence::{GateCounts, GateReading};

/// Argo Rollouts #3724: when a pod of the new version became unready during the analysis of a
/// blue-green rollout, the analysis was cancelled and the version promoted. Here readiness neither
/// ends an analysis nor replaces its verdict.
#[test]
fn b02_an_unready_pod_neither_ends_nor_passes_an_analysis() {
    let mut world = canary("v2");
    world.until(RolloutStage::Analyzing, 1);
    let set = world.set_mut("v2");
    (set.ready, set.available) = (0, 0);
    for _ in 0..10 {
        world.step();
        world.pass(1);
        assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
    }
    assert_eq!(world.weights(), [("v1".to_owned(), 500), ("v2".to_owned(), 500)]);
}

/// Argo Rollouts #1329, #4479: an analysis that was terminated before its first or its last sample
/// counted as successful. Here the verdict is never Pass without enough evidence.
#[test]
fn b03_no_sample_is_no_pass() {
    let mut world = canary("v2");
    world.until(RolloutStage::Analyzing, 0);
    for _ in 0..20 {
        world.observed.evidence = None;
        world.tick(60);
        assert_eq!(
            (world.stage(), world.status().rollout.unwrap().step_index),
            (Some(RolloutStage::Analyzing), 0)
        );
    }
    // A few samples are not enough either.
    world.errors((0.0, 5.0), (0.0, 95.0));
    world.tick(1);
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
    assert_eq!(world.says("GatePassed"), "Unknown NeedMoreData");
}

/// Argo Rollouts: NaN, an empty vector and `all()` over nothing pass in common forms of conditions,
/// and a ratio over series of successes is empty when every request fails, which passed as well.
/// Here the step holds without a usable reading of both revisions, and a revision with only
/// failures is the worst case.
#[test]
fn b04_unusable_metrics_hold() {
    let mut world = canary("v2");
    world.until(RolloutStage::Analyzing, 0);
    let generation = world.status().traffic.unwrap().generation;
    let candidate = world.status().candidate.unwrap().revision;
    let stable = world.status().stable.unwrap().revision;
    let counts = |pairs: &[(&str, f64, f64)]| {
        GateReading::Counts(
            pairs
                .iter()
                .map(|(arm, bad, good)| ((*arm).to_owned(), GateCounts { bad: *bad, good: *good }))
                .collect(),
        )
    };
    let unusable = [
        counts(&[]),
        counts(&[(&stable, 1.0, 9999.0)]),
        counts(&[(&candidate, f64::NAN, f64::NAN), (&stable, 1.0, 9999.0)]),
        counts(&[(&candidate, 0.0, f64::INFINITY), (&stable, 1.0, 9999.0)]),
        counts(&[(&candidate, -5.0, 9999.0), (&stable, 1.0, 9999.0)]),
        counts(&[("0123456789", 0.0, 99999.0), (&stable, 1.0, 9999.0)]),
        GateReading::NoData("two series".into()),
        GateReading::Value(0.0),
        GateReading::Buckets(BTreeMap::new()),
    ];
    for reading in unusable {
        world.pass(1);
        world.read(generation, "errors", reading.clone());
        world.step();
        assert_eq!(world.stage(), Some(RolloutStage::Analyzing), "{reading:?}");
        assert_ne!(world.status().gates[0].verdict, GateVerdict::Pass, "{reading:?}");
    }
    // Everything failed and there is no series of successes: that is the worst case, not the best.
    world.pass(1);
    world.read(generation, "errors", counts(&[(&candidate, 500.0, 0.0), (&stable, 1.0, 9999.0)]));
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Aborted));
}

#[test]
fn b04_evidence_of_another_weight_or_time_is_ignored() {
    let mut world = canary("v2");
    world.until(RolloutStage::Confirming, 0);
    world.errors((0.0, 99999.0), (0.0, 99999.0));
    let early = world.observed.evidence.clone();
    world.pass(2);
    world.step();
    world.step();
    assert_eq!(
        world.stage(),
        Some(RolloutStage::Analyzing),
        "it was taken before the confirmation"
    );
    world.good();
    let generation = world.status().traffic.unwrap().generation;
    world.observed.evidence.as_mut().unwrap().generation = generation - 1;
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing), "it is about the weight before");
    world.observed.evidence = early;
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
}

/// Argo Rollouts aborts after five failed queries, about 40 s of unavailability of Prometheus;
/// Flagger counts each as a failed check and rolls back. Here an outage of the provider holds the
/// step, is reported, and has no effect after it ends.
#[test]
fn b05_an_outage_of_the_provider_holds_and_says_so() {
    let mut world = canary("v2");
    world.until(RolloutStage::Analyzing, 0);
    let generation = world.status().traffic.unwrap().generation;
    for _ in 0..50 {
        world.pass(60);
        world.read(generation, "errors", GateReading::ProviderDown("connection refused".into()));
        world.step();
        assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
    }
    assert_eq!(world.says("GatePassed"), "Unknown ProviderDown");
    assert!(world.condition("Reconciling").message.contains("connection refused"));
    world.finish();
    assert_eq!(world.stable(), "v2");
}

/// Argo Rollouts #4864, #3258: background analysis began before the candidate had any traffic, so
/// it passed without evidence, or aborted a healthy version for lack of it. Here evidence is
/// requested only after every gateway has confirmed the weight.
#[test]
fn b06_no_judgement_before_every_gateway_sends() {
    let mut world = canary("v2");
    world.until(RolloutStage::Confirming, 0);
    let generation = world.status().traffic.unwrap().generation;
    world.observed.gateway.pods[1].report = None;
    world.gateway_follows(0);
    world.read(generation, "errors", GateReading::NoData("no series".into()));
    let plan = world.step();
    assert!(plan.evidence.is_none());
    assert_eq!(world.stage(), Some(RolloutStage::Confirming));
    assert!(world.condition("Reconciling").message.contains("1 of 2 gateways"));
}

/// Regression: with readings more frequent than the delay of a status write, the reason for missing
/// evidence was never written.
#[test]
fn what_the_first_reading_says_is_told_until_it_is_written() {
    let query = json!({ "name": "spy", "type": "PromQL", "promQL": { "query": "count(up{x!='{{candidate}}'})", "min": 0 } });
    let mut world = World::serving(json!({ "analysis": { "mode": "Custom", "gates": [query] } }));
    world.version("v2");
    world.until(RolloutStage::Analyzing, 0);
    let generation = world.status().traffic.unwrap().generation;
    for _ in 0..3 {
        world.pass(1);
        world.read(generation, "spy", GateReading::NoData("query returned no series".into()));
        // The delayed status is not written yet.
        let plan = world.plan();
        assert!(plan.status.gates[0].message.contains("no series"), "{:?}", plan.status.gates);
    }
}
