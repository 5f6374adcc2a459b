//! PromQL gates.

use slipway_crds::v1alpha1::GateVerdict;

use super::*;

fn gate() -> Vec<GateSpec> {
    gates(
        "[{ name: score, type: PromQL, promQL: { query: '{{candidate}}', min: '0.9', max: 950m, consecutiveCount: 2 } }]",
    )
}

/// Evaluates a value `seconds` after the confirmation, with the stored status.
fn look(seconds: i64, value: f64, previous: &[GateStatus]) -> Judgement {
    run(&gate(), Some(&evidence(seconds, [("score", GateReading::Value(value))])), previous)
}

#[test]
fn so_many_looks_in_a_row_pass() {
    let first = look(10, 0.93, &[]);
    assert_eq!((first.verdict, first.gates[0].consecutive), (GateVerdict::NeedMoreData, 1));
    assert_eq!(
        first.message,
        "score: value 0.93, asked for 0.9 to 0.95: 1 of 2 looks in a row within"
    );
    let second = look(20, 0.94, &first.gates);
    assert_eq!((second.verdict, second.gates[0].consecutive), (GateVerdict::Pass, 2));
    // A complete series does not grow.
    let third = look(30, 0.9, &second.gates);
    assert_eq!((third.verdict, third.gates[0].consecutive), (GateVerdict::Pass, 2));
}

#[test]
fn so_many_looks_in_a_row_fail() {
    let first = look(10, 0.5, &[]);
    assert_eq!((first.verdict, first.gates[0].consecutive), (GateVerdict::NeedMoreData, -1));
    let second = look(20, 0.96, &first.gates);
    assert_eq!((second.verdict, second.gates[0].consecutive), (GateVerdict::Fail, -2));
}

#[test]
fn a_look_on_the_other_side_starts_anew() {
    let passed = look(20, 0.93, &look(10, 0.93, &[]).gates);
    let out = look(30, 0.1, &passed.gates);
    assert_eq!((out.verdict, out.gates[0].consecutive), (GateVerdict::NeedMoreData, -1));
    let back = look(40, 0.93, &out.gates);
    assert_eq!((back.verdict, back.gates[0].consecutive), (GateVerdict::NeedMoreData, 1));
}

#[test]
fn one_reading_counts_once_however_often_it_is_planned_with() {
    let first = look(20, 0.5, &[]);
    let mut again = first.clone();
    for _ in 0..5 {
        again = look(20, 0.5, &again.gates);
    }
    assert_eq!(again, first);
    // An older reading that a new leader may still have does not count either.
    assert_eq!(look(19, 0.5, &first.gates).gates[0].consecutive, -1);
    assert_eq!(look(9, 0.5, &first.gates).gates[0].consecutive, -1);
}

#[test]
fn the_row_of_another_weight_does_not_count() {
    let mut remembered = look(10, 0.93, &[]).gates;
    remembered[0].last_look_time =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(after(-60)));
    assert_eq!(look(10, 0.93, &remembered).gates[0].consecutive, 1);
}

#[test]
fn what_is_no_number_breaks_the_row_and_decides_nothing() {
    let first = look(10, 0.5, &[]);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let judgement = look(20, value, &first.gates);
        assert_eq!((judgement.verdict, judgement.gates[0].consecutive), (GateVerdict::NoData, 0));
    }
    let nothing = evidence(20, [("score", GateReading::NoData("no series".to_owned()))]);
    let judgement = run(&gate(), Some(&nothing), &first.gates);
    assert_eq!((judgement.verdict, judgement.gates[0].consecutive), (GateVerdict::NoData, 0));
}

#[test]
fn a_look_that_could_not_be_taken_leaves_the_row() {
    let first = look(10, 0.5, &[]);
    let down = evidence(20, [("score", GateReading::ProviderDown("refused".to_owned()))]);
    let held = run(&gate(), Some(&down), &first.gates);
    assert_eq!((held.verdict, held.gates[0].consecutive), (GateVerdict::ProviderDown, -1));
    // A new leader has no reading at first.
    let none = run(&gate(), None, &held.gates);
    assert_eq!((none.verdict, none.gates[0].consecutive), (GateVerdict::NoData, -1));
    assert_eq!(look(30, 0.5, &none.gates).verdict, GateVerdict::Fail);
}

#[test]
fn nothing_counts_before_the_initial_delay() {
    let judgement = look(9, 0.5, &[]);
    assert_eq!((judgement.verdict, judgement.gates[0].consecutive), (GateVerdict::NeedMoreData, 0));
    assert_eq!(judgement.message, "score: the first look is 1 s from now");
}

#[test]
fn bounds_that_are_no_numbers_hold() {
    let gate =
        gates("[{ name: score, type: PromQL, promQL: { query: '{{candidate}}', min: lots } }]");
    let judgement = run(&gate, Some(&evidence(20, [("score", GateReading::Value(1.0))])), &[]);
    assert_eq!(judgement.verdict, GateVerdict::NoData);
    assert_eq!(judgement.message, "score: promQL.min: \"lots\" is no number");
}

#[test]
fn readings_of_another_kind_hold() {
    let wrong = evidence(20, [("score", counts(Some((0.0, 1e4)), Some((0.0, 1e4))))]);
    assert_eq!(run(&gate(), Some(&wrong), &[]).verdict, GateVerdict::NoData);
    let wrong = evidence(20, [("errors", GateReading::Value(0.0))]);
    assert_eq!(run(&errors(), Some(&wrong), &[]).verdict, GateVerdict::NoData);
}
