//! Verdicts of single cases: the regression catalogue of metric gating (no series, NaN, infinities,
//! stale series, an arm with only failures, resets, gaps, an unavailable provider) and ordinary
//! cases.

use slipway_crds::v1alpha1::{AnalysisMode, AnalysisSpec, GateType, GateVerdict};

use super::*;
use crate::evidence::EvidenceQuery;
use crate::{gate_queries, resolved_gates};

#[test]
fn without_gates_nobody_asked_for_a_judge() {
    let judgement = run(&[], None, &[]);
    assert_eq!(judgement.verdict, GateVerdict::Pass);
    assert!(judgement.gates.is_empty());
}

#[test]
fn no_reading_is_no_data() {
    let judgement = run(&errors(), None, &[]);
    assert_eq!(judgement.verdict, GateVerdict::NoData);
    assert_eq!(judgement.message, "errors: no reading yet");
}

#[test]
fn readings_of_other_weights_are_never_used() {
    let perfect = || counts(Some((0.0, 1e5)), Some((0.0, 1e5)));
    let mut other_generation = evidence(60, [("errors", perfect())]);
    other_generation.generation = 6;
    let too_early = evidence(-1, [("errors", perfect())]);
    for evidence in [other_generation, too_early] {
        let judgement = run(&errors(), Some(&evidence), &[]);
        assert_eq!(judgement.verdict, GateVerdict::NoData);
        assert_eq!(judgement.message, "errors: no reading yet at this weight");
    }
    assert_eq!(one(perfect()).0, GateVerdict::Pass);
}

#[test]
fn a_gate_that_the_reading_does_not_cover_holds() {
    let judgement = run(&errors(), Some(&evidence(60, [])), &[]);
    assert_eq!(judgement.verdict, GateVerdict::NoData);
}

#[test]
fn no_series_at_all() {
    let (verdict, message) = one(counts(None, None));
    assert_eq!(verdict, GateVerdict::NoData);
    assert_eq!(message, "errors: no request reached the candidate");
}

#[test]
fn the_missing_arm_is_named() {
    let healthy = Some((5.0, 1000.0));
    for nothing in [None, Some((0.0, 0.0)), Some((0.0, 0.4))] {
        assert_eq!(
            one(counts(nothing, healthy)),
            (GateVerdict::NoData, "errors: no request reached the candidate".into())
        );
        assert_eq!(
            one(counts(healthy, nothing)),
            (GateVerdict::NoData, "errors: no request reached stable".into())
        );
    }
}

#[test]
fn series_of_a_former_revision_are_not_the_candidates() {
    let reading = GateReading::Counts(BTreeMap::from([
        ("0ld0ld0ld0".to_owned(), GateCounts { bad: 0.0, good: 1e6 }),
        (STABLE.to_owned(), GateCounts { bad: 0.0, good: 1e6 }),
    ]));
    assert_eq!(one(reading).0, GateVerdict::NoData);
}

#[test]
fn what_is_no_count_is_no_data() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300] {
        let broken = GateCounts { bad, good: 1000.0 };
        let fine = GateCounts { bad: 1.0, good: 1000.0 };
        for (candidate, stable) in [(broken, fine), (fine, broken)] {
            let reading = GateReading::Counts(BTreeMap::from([
                (CANDIDATE.to_owned(), candidate),
                (STABLE.to_owned(), stable),
            ]));
            let (verdict, message) = one(reading);
            assert_eq!(verdict, GateVerdict::NoData, "{message}");
            assert!(message.contains("the count of bad events is"), "{message}");
        }
    }
}

#[test]
fn several_series_are_the_pollers_no_data() {
    let (verdict, message) = one(GateReading::NoData("2 series where 1 was expected".to_owned()));
    assert_eq!(
        (verdict, message.as_str()),
        (GateVerdict::NoData, "errors: 2 series where 1 was expected")
    );
}

#[test]
fn only_failures_without_a_success_series_fail() {
    // The candidate has a series for bad events only; the other counts as 0.
    assert_eq!(one(counts(Some((40.0, 40.0)), Some((1.0, 800.0)))).0, GateVerdict::Fail);
    // The same if stable has only successes.
    assert_eq!(one(counts(Some((12.0, 12.0)), Some((0.0, 300.0)))).0, GateVerdict::Fail);
}

#[test]
fn a_hiccup_is_not_a_verdict() {
    assert_eq!(one(counts(Some((4.0, 4.0)), Some((0.0, 1e6)))).0, GateVerdict::NeedMoreData);
    assert_eq!(one(counts(Some((4.0, 12.0)), Some((0.0, 1e6)))).0, GateVerdict::NeedMoreData);
}

#[test]
fn a_counter_reset_or_a_scrape_gap_only_takes_evidence_away() {
    // increase() handles resets; after a missing scrape the next count may be smaller than the
    // last. The judge stores no counts that this could affect.
    let before = one(counts(Some((1.0, 90.0)), Some((5.0, 2000.0)))).0;
    let gap = one(counts(Some((0.9, 40.3)), Some((2.2, 900.7)))).0;
    assert_eq!((before, gap), (GateVerdict::NeedMoreData, GateVerdict::NeedMoreData));
}

#[test]
fn a_provider_that_is_down_holds_and_forgets_nothing() {
    for why in [
        "connection refused",
        "no answer within 5 s",
        "503",
        "429",
        "certificate signed by unknown authority",
    ] {
        let judgement = run(
            &errors(),
            Some(&evidence(60, [("errors", GateReading::ProviderDown(why.to_owned()))])),
            &[],
        );
        assert_eq!(judgement.verdict, GateVerdict::ProviderDown);
        assert_eq!(judgement.message, format!("errors: {why}"));
        // When the provider is available again, after a minute or an hour, the whole window is
        // judged as if there had been no outage.
        for seconds in [120, 660, 3660] {
            let good =
                evidence(seconds, [("errors", counts(Some((2.0, 900.0)), Some((40.0, 17_000.0))))]);
            assert_eq!(run(&errors(), Some(&good), &judgement.gates).verdict, GateVerdict::Pass);
        }
    }
}

#[test]
fn a_healthy_candidate_passes_and_the_message_says_what_is_excluded() {
    let (verdict, message) = one(counts(Some((3.0, 600.0)), Some((50.0, 11_400.0))));
    assert_eq!(verdict, GateVerdict::Pass);
    assert_eq!(
        message,
        "errors: 0.5% of 600 requests at the candidate failed, 0.44% at stable: an increase of 2% is excluded"
    );
}

#[test]
fn a_bad_candidate_fails_and_the_message_says_by_how_much_at_least() {
    let (verdict, message) = one(counts(Some((30.0, 200.0)), Some((19.0, 3800.0))));
    assert_eq!(verdict, GateVerdict::Fail);
    assert!(
        message.starts_with("errors: 15% of 200 requests at the candidate failed, 0.5% at stable: worse by at least "),
        "{message}"
    );
}

#[test]
fn too_little_says_how_much_more() {
    let judgement = run(
        &errors(),
        Some(&evidence(60, [("errors", counts(Some((0.0, 120.0)), Some((8.0, 2280.0))))])),
        &[],
    );
    assert_eq!(judgement.verdict, GateVerdict::NeedMoreData);
    let message = &judgement.gates[0].message;
    assert!(message.contains("more requests at the candidate (has 120), about "), "{message}");
    let more: f64 = message
        .split("about ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .replace(',', "")
        .parse()
        .unwrap();
    assert!((20.0..600.0).contains(&more), "{message}");
    // The estimate is right: with that many more events, at the same rates, there is a verdict.
    let by = (120.0 + more) / 120.0;
    assert_eq!(
        one(counts(Some((0.0, 120.0 * by)), Some((8.0 * by, 2280.0 * by)))).0,
        GateVerdict::Pass
    );
    assert_eq!(
        (judgement.gates[0].candidate.as_str(), judgement.gates[0].stable.as_str()),
        ("0 of 120 failed", "8 of 2,280 failed")
    );
}

#[test]
fn fewest_requests_hold_for_both_arms() {
    let gate = |min: i32| {
        gates(&format!(
            "[{{ name: errors, type: ErrorRate, errorRate: {{ minRequests: {min} }} }}]"
        ))
    };
    let of = |min: i32, candidate: f64, stable: f64| {
        let reading = counts(Some((0.0, candidate)), Some((0.0, stable)));
        run(&gate(min), Some(&evidence(60, [("errors", reading)])), &[]).verdict
    };
    assert_eq!(of(2000, 1999.0, 5000.0), GateVerdict::NeedMoreData);
    assert_eq!(of(2000, 5000.0, 1999.0), GateVerdict::NeedMoreData);
    assert_eq!(of(2000, 2000.0, 2000.0), GateVerdict::Pass);
}

#[test]
fn worse_by_less_than_is_worth_catching_passes() {
    // Certainly 0.2 points worse; 2 points are worth detecting.
    assert_eq!(one(counts(Some((7000.0, 1e6)), Some((5000.0, 1e6)))).0, GateVerdict::Pass);
}

#[test]
fn accuracy_counts_wrong_predictions() {
    let gate = gates("[{ name: accuracy, type: Accuracy }]");
    let of = |candidate, stable| {
        run(&gate, Some(&evidence(60, [("accuracy", counts(candidate, stable))])), &[])
    };
    assert_eq!(of(Some((120.0, 400.0)), Some((250.0, 5000.0))).verdict, GateVerdict::Fail);
    assert_eq!(of(Some((75.0, 1500.0)), Some((500.0, 10_000.0))).verdict, GateVerdict::Pass);
    assert_eq!(
        of(None, Some((5.0, 100.0))).message,
        "accuracy: no labelled prediction of the candidate"
    );
    let message = of(Some((1.0, 1.0)), Some((5.0, 100.0))).message;
    assert!(
        message.contains("100% of 1 labelled prediction at the candidate wrong, 5% at stable"),
        "{message}"
    );
}

#[test]
fn fail_wins_then_the_worst_hold() {
    let gate = |name: &str| format!("{{ name: {name}, type: ErrorRate }}");
    let all = gates(&format!(
        "[{}, {}, {}, {}, {}]",
        gate("a"),
        gate("b"),
        gate("c"),
        gate("d"),
        gate("e")
    ));
    let readings = || {
        [
            ("a", counts(Some((0.0, 1e4)), Some((0.0, 1e4)))),
            ("b", counts(Some((0.0, 20.0)), Some((0.0, 1e4)))),
            ("c", counts(None, Some((0.0, 1e4)))),
            ("d", GateReading::ProviderDown("refused".to_owned())),
            ("e", counts(Some((500.0, 1e3)), Some((0.0, 1e4)))),
        ]
    };
    use GateVerdict::{Fail, NeedMoreData, NoData, Pass, ProviderDown};
    for (first, verdict) in
        [(5, Fail), (4, ProviderDown), (3, NoData), (2, NeedMoreData), (1, Pass)]
    {
        let judgement = run(&all[..first], Some(&evidence(60, readings())), &[]);
        assert_eq!(judgement.verdict, verdict);
        assert_eq!(judgement.gates.len(), first);
        assert_eq!(judgement.gates.last().unwrap().verdict, verdict);
    }
}

#[test]
fn the_default_gates_are_errors_and_latency() {
    let resolved = resolved_gates(&AnalysisSpec::default());
    let named: Vec<_> = resolved.iter().map(|g| (g.name.as_str(), g.type_)).collect();
    assert_eq!(named, [("errors", GateType::ErrorRate), ("latency", GateType::Latency)]);
    assert!(
        resolved_gates(&AnalysisSpec { mode: AnalysisMode::Disabled, ..AnalysisSpec::default() })
            .is_empty()
    );
}

#[test]
fn queries_name_both_revisions_and_the_window() {
    let all = gates(
        "
        - { name: errors, type: ErrorRate }
        - { name: latency, type: Latency }
        - { name: accuracy, type: Accuracy }
        - name: custom
          type: PromQL
          promQL: { query: 'x{r=\"{{candidate}}\",s=\"{{stable}}\",m=\"{{modeldeployment}}\",n=\"{{namespace}}\"}[{{window}}]', min: 1 }
        ",
    );
    let asked = gate_queries("shop", "churn", &all, "abc", "def", &[]);
    let pods = |pods: &str| {
        format!(r#"namespace="shop",pod=~"{pods}",modeldeployment="churn",revision=~"abc|def""#)
    };
    let gateway = pods("slipway-gateway-[a-z0-9]+-[a-z0-9]+");
    let roles = r#"role=~"stable|candidate""#;
    let expected = [
        (
            "errors",
            EvidenceQuery::Counts(format!(
                r#"sum by (revision, result) (label_replace(label_replace(max by (pod, revision, role, outcome) (increase(slipway_gateway_requests_total{{{gateway},{roles},outcome=~"success|client_error|contract_error|server_error|timeout|try_timeout|unavailable"}}[{{{{window}}}}])), "result", "bad", "outcome", "contract_error|server_error|timeout|try_timeout|unavailable"), "result", "good", "outcome", "success|client_error"))"#
            )),
        ),
        (
            "latency",
            EvidenceQuery::Buckets(format!(
                "sum by (revision, le) (max by (pod, revision, role, le) (increase(slipway_gateway_request_duration_seconds_bucket{{{gateway},{roles}}}[{{{{window}}}}])))"
            )),
        ),
        (
            "accuracy",
            EvidenceQuery::Counts(format!(
                r#"sum by (revision, result) (label_replace(label_replace(max by (pod, revision, result) (increase(slipway_gateway_feedback_total{{{gateway},result=~"correct|incorrect"}}[{{{{window}}}}])), "result", "bad", "result", "incorrect"), "result", "good", "result", "correct"))"#
            )),
        ),
        (
            "custom",
            EvidenceQuery::Value(r#"x{r="abc",s="def",m="churn",n="shop"}[{{window}}]"#.to_owned()),
        ),
    ];
    for (asked, (gate, query)) in asked.iter().zip(expected) {
        assert_eq!((asked.gate.as_str(), &asked.queries), (gate, &query));
    }
    // With matchers that select this cluster in a store of several.
    let asked =
        gate_queries("shop", "churn", &all, "abc", "def", &[r#"cluster="eu-1""#.to_owned()]);
    let texts = asked.iter().filter_map(|asked| match &asked.queries {
        EvidenceQuery::Counts(text) | EvidenceQuery::Buckets(text) => Some(text),
        EvidenceQuery::Value(_) => None,
    });
    assert!(
        texts.clone().count() == 3
            && texts.into_iter().all(|text| text.contains(r#"|def",cluster="eu-1""#))
    );
}
