//! Tests of the judge: single cases, properties, and simulations.

mod cases;
mod promql;
mod properties;
mod simulation;
mod slow;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use slipway_crds::v1alpha1::{GateSpec, GateStatus, GateVerdict};

use super::{JudgeInput, Judgement, judge_gates};
use crate::evidence::{GateCounts, GateEvidence, GateReading};

const CANDIDATE: &str = "cccccccccc";
const STABLE: &str = "5555555555";

/// Gates from literal YAML.
fn gates(yaml: &str) -> Vec<GateSpec> {
    serde_yaml::from_str(yaml).unwrap()
}

fn errors() -> Vec<GateSpec> {
    gates("[{ name: errors, type: ErrorRate }]")
}

fn confirmed_time() -> Timestamp {
    "2026-11-24T06:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    confirmed_time() + SignedDuration::from_secs(seconds)
}

/// Evidence of generation 7, taken `seconds` after the confirmation.
fn evidence(
    seconds: i64,
    readings: impl IntoIterator<Item = (&'static str, GateReading)>,
) -> GateEvidence {
    GateEvidence {
        generation: 7,
        taken_at: after(seconds),
        serial: seconds.unsigned_abs(),
        gates: readings.into_iter().map(|(gate, reading)| (gate.to_owned(), reading)).collect(),
    }
}

/// Counts as (bad, all) of candidate and stable; an arm may be missing.
fn counts(candidate: Option<(f64, f64)>, stable: Option<(f64, f64)>) -> GateReading {
    let arms = [(CANDIDATE, candidate), (STABLE, stable)];
    let arm = |(bad, all): (f64, f64)| GateCounts { bad, good: all - bad };
    GateReading::Counts(
        arms.into_iter().filter_map(|(name, of)| Some((name.to_owned(), arm(of?)))).collect(),
    )
}

fn buckets(candidate: &[(f64, f64)], stable: &[(f64, f64)]) -> GateReading {
    GateReading::Buckets(BTreeMap::from([
        (CANDIDATE.to_owned(), candidate.to_vec()),
        (STABLE.to_owned(), stable.to_vec()),
    ]))
}

fn run(gates: &[GateSpec], evidence: Option<&GateEvidence>, previous: &[GateStatus]) -> Judgement {
    judge_gates(&JudgeInput {
        gates,
        alpha: 0.0025,
        candidate: CANDIDATE,
        stable: STABLE,
        evidence,
        generation: 7,
        confirmed_time: confirmed_time(),
        now: evidence.map_or(after(100), |e| e.taken_at),
        previous,
    })
}

/// The verdict and the message of an error-rate gate for one reading.
fn one(reading: GateReading) -> (GateVerdict, String) {
    let judgement = run(&errors(), Some(&evidence(60, [("errors", reading)])), &[]);
    (judgement.verdict, judgement.message)
}
