//! Properties that hold for every input, including impossible ones, and along every path.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::{DIGEST, FOUND, World, stored};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};
use slipway_contracts::state::BrakeTrip;
use slipway_core::action::PlanAction;
use slipway_core::fields::ManagedFields;
use slipway_core::marks::RevisionMarks;
use slipway_core::observed::{
    FetchedModel, GatewayPod, GatewayReport, ModelDigest, PodProblem, ReplicaSetView,
    UnreachableGateway,
};
use slipway_core::plan::plan;
use slipway_crds::v1alpha1::{
    AbortStatus, ModelDeploymentStatus, RevisionRole, RevisionStatus, RolloutStage, RolloutStatus,
    StepRecord, TrafficBackend, TrafficStatus,
};
use slipway_judge::evidence::{GateCounts, GateEvidence, GateReading};

/// A few revisions: those of the versions v1 to v3, and an unknown one.
fn revisions() -> Vec<String> {
    let mut all: Vec<String> = ["v1", "v2", "v3"]
        .iter()
        .map(|version| {
            let world =
                World::new(json!({ "model": { "uri": format!("http://store/{version}"), "version": version } }));
            slipway_objects::revision::revision_of_spec(&world.observed.object.spec)
        })
        .collect();
    all.push("ffffffffff".to_owned());
    all
}

fn revision() -> impl Strategy<Value = String> {
    proptest::sample::select(revisions())
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn time() -> impl Strategy<Value = Time> {
    (-5000_i64..5000).prop_map(|seconds| Time(start() + SignedDuration::from_secs(seconds)))
}

fn stage() -> impl Strategy<Value = RolloutStage> {
    proptest::sample::select(vec![
        RolloutStage::Scaling,
        RolloutStage::Confirming,
        RolloutStage::Analyzing,
        RolloutStage::Paused,
        RolloutStage::Preview,
        RolloutStage::Probation,
        RolloutStage::Aborted,
    ])
}

prop_compose! {
    fn spec()(
        version in 1..=3,
        replicas in 0..6,
        blue_green in any::<bool>(),
        paused in proptest::bool::weighted(0.2),
        invalid in proptest::bool::weighted(0.1),
        gates in any::<bool>(),
        probation in proptest::option::of(0..100),
        history in 0..3,
        pause in proptest::option::of(proptest::option::of(1..100)),
    ) -> Value {
        let mut steps = vec![json!({ "setWeight": 5 }), json!({ "setWeight": if invalid { 1 } else { 50 } })];
        if let Some(pause) = pause {
            steps.insert(1, json!({ "pause": { "durationSeconds": pause } }));
        }
        let strategy = if blue_green {
            json!({ "type": "BlueGreen", "blueGreen": { "switchSteps": [10], "autoPromotionSeconds": 5 } })
        } else {
            json!({ "type": "Canary", "canary": { "steps": steps } })
        };
        let analysis = if gates {
            json!({ "mode": "Custom", "gates": [{ "name": "errors", "type": "ErrorRate" }] })
        } else {
            json!({ "mode": "Disabled" })
        };
        let mut spec = json!({
            "model": { "uri": format!("http://store/v{version}"), "version": format!("v{version}") },
            "replicas": replicas, "paused": paused, "strategy": strategy, "analysis": analysis,
            "revisionHistoryLimit": history,
        });
        if let Some(probation) = probation {
            spec["strategy"]["probationSeconds"] = json!(probation);
        }
        spec
    }
}

prop_compose! {
    fn traffic()(
        generation in -2_i64..20,
        confirmed in -2_i64..20,
        at in proptest::option::of(time()),
        backends in proptest::collection::vec((revision(), any::<bool>(), -100..1200), 0..4),
        preview in proptest::option::of(revision()),
    ) -> TrafficStatus {
        let backends = backends.into_iter().map(|(revision, stable, weight_permille)| TrafficBackend {
            revision, role: if stable { RevisionRole::Stable } else { RevisionRole::Candidate }, weight_permille,
        });
        TrafficStatus {
            generation, backends: backends.collect(), preview_revision: preview, confirmed_generation: confirmed,
            confirmed_time: at, observed_candidate_share: None,
        }
    }
}

prop_compose! {
    fn rollout()(
        revision in revision(), stage in stage(), step_index in -2..9, start_time in time(), stage_start_time in time(),
        steps in proptest::collection::vec((0..1001, time(), proptest::option::of(time())), 0..4),
        abort in proptest::option::of((time(), proptest::option::of(time()))), promote_full in any::<bool>(),
    ) -> RolloutStatus {
        let steps = steps.into_iter().map(|(weight_permille, set_time, confirmed_time)| StepRecord {
            weight_permille, set_time, confirmed_time, end_time: None, observed_permille: None, verdict: String::new(),
        });
        RolloutStatus {
            revision, version: String::new(), stage, step_index, step: String::new(), start_time, stage_start_time, steps: steps.collect(),
            abort: abort.map(|(at, traffic_left_time)| AbortStatus {
                reason: "GateFailed".into(), message: String::new(), time: at, traffic_left_time,
            }),
            promote_full, paused_by: None, commands: Vec::new(),
        }
    }
}

prop_compose! {
    fn status()(
        stable in proptest::option::of(revision()), candidate in proptest::option::of((revision(), 0..6)),
        traffic in proptest::option::of(traffic()), rollout in proptest::option::of(rollout()),
    ) -> ModelDeploymentStatus {
        let told = |revision: String, replicas| RevisionStatus { revision, replicas, ..RevisionStatus::default() };
        ModelDeploymentStatus {
            stable: stable.map(|revision| told(revision, 0)),
            candidate: candidate.map(|(revision, replicas)| told(revision, replicas)),
            traffic, rollout, ..ModelDeploymentStatus::default()
        }
    }
}

fn digest() -> impl Strategy<Value = String> {
    prop_oneof![Just(DIGEST.to_owned()), Just(FOUND.to_owned())]
}

prop_compose! {
    fn set()(
        index in 0..4_usize, desired in 0..7_i32, current in 0..7_i32, ready in 0..7_i32, observed in any::<bool>(),
        owned in proptest::bool::weighted(0.9), orphaned in proptest::bool::weighted(0.1), deleting in proptest::bool::weighted(0.1), age in 0..9000_i64,
        marked in -3000_i64..9000, aborted in any::<bool>(), digest in prop_oneof![
            Just(ModelDigest::Unreported), Just(ModelDigest::Pending), digest().prop_map(ModelDigest::Pinned)
        ],
    ) -> ReplicaSetView {
        let revision = revisions()[index].clone();
        let at = start() - SignedDuration::from_secs(marked);
        let marks = RevisionMarks { stable_since: (marked > 0).then_some(at), aborted: aborted.then(|| (at, "Braked".to_owned())) };
        ReplicaSetView {
            digest, marks, failure: String::new(),
            name: format!("digits-{revision}"), uid: format!("set-{index}"), revision, version: format!("v{}", index + 1),
            created_at: start() - SignedDuration::from_secs(age), desired, current, ready: ready.min(current),
            available: ready.min(current), is_observed: observed, owned, orphaned: owned && orphaned, applied_hash: String::new(), images: BTreeMap::new(), managed_fields: ManagedFields::default(), deleting,
        }
    }
}

prop_compose! {
    fn gateway_pod()(
        ready in proptest::bool::weighted(0.8), generation in -1_i64..22, told in proptest::bool::weighted(0.9),
        revision in revision(), requests in 0..100_u64, flight in 0..2_u64, good in 0..2_u64, answered in any::<bool>(), brake in proptest::bool::weighted(0.2),
        age in 0..200_i64,
    ) -> GatewayPod {
        let counts = BTreeMap::from([(revision.clone(), requests)]);
        let report = GatewayReport {
            generation, requests: counts, answered: answered.then(|| BTreeMap::from([(revision.clone(), good)])),
            unshielded: 0,
            in_flight: BTreeMap::from([(revision.clone(), flight)]),
            ready_endpoints: BTreeMap::new(),
            brake: brake.then(|| BrakeTrip {
                revision, generation, reason: "x".into(), failures: 10, requests: 11, at: start(),
            }),
        };
        let lost = UnreachableGateway { since: start() - SignedDuration::from_secs(age), error: "192.0.2.1:9091: refused".into() };
        GatewayPod { name: "g".into(), ready, report: told.then_some(report), unreachable: (!told).then_some(lost) }
    }
}

prop_compose! {
    fn evidence()(
        generation in 0_i64..20, at in time(), serial in any::<u64>(), revision in revision(),
        bad in prop_oneof![0.0..1e6, Just(f64::NAN), Just(f64::INFINITY), Just(-1.0)],
        good in prop_oneof![0.0..1e6, Just(f64::NAN)], kind in 0..4,
    ) -> GateEvidence {
        let reading = match kind {
            0 => GateReading::NoData(String::new()),
            1 => GateReading::ProviderDown("down".into()),
            2 => GateReading::Value(bad),
            _ => GateReading::Counts(revisions().into_iter().map(|it| {
                let counts = if it == revision { GateCounts { bad, good } } else { GateCounts { bad: 1.0, good: 9999.0 } };
                (it, counts)
            }).collect()),
        };
        GateEvidence { generation, taken_at: at.0, serial, gates: BTreeMap::from([("errors".to_owned(), reading)]) }
    }
}

prop_compose! {
    /// Any situation.
    fn situation()(
        spec in spec(), status in proptest::option::weighted(0.9, status()),
        sets in proptest::collection::vec(set(), 0..4), pods in proptest::collection::vec(gateway_pod(), 0..4),
        evidence in proptest::option::of(evidence()), commands in proptest::collection::vec(0..4_usize, 0..3),
        problem in proptest::option::of((revision(), 0..3)), offset in -5000_i64..9000, pinned in any::<bool>(),
        fetched in proptest::collection::vec((revision(), digest()), 0..4),
    ) -> World {
        let mut world = World::new(spec);
        if !pinned {
            world.observed.object.spec.model.digest = None;
        }
        let told = fetched.into_iter().enumerate();
        let told = told.map(|(n, (revision, digest))| FetchedModel { revision, pod: format!("p{n}"), digest });
        world.observed.fetched_models = told.collect();
        world.observed.object.status = status;
        let mut seen = std::collections::BTreeSet::new();
        world.observed.replica_sets = sets.into_iter().filter(|set| seen.insert(set.name.clone())).collect();
        world.observed.gateway.pods = pods;
        world.observed.evidence = evidence;
        for command in commands {
            world.command(["abort", "retry", "promote", "promote-full"][command], "n");
        }
        world.observed.pod_problems = problem.into_iter().map(|(revision, restarts)| PodProblem {
            revision, pod: "p".into(), reason: "CrashLoopBackOff".into(), restarts,
            message: r#"{"reason":"DigestMismatch","message":"other bytes","permanent":true}"#.into(),
        }).collect();
        world.now = start() + SignedDuration::from_secs(offset);
        world
    }
}

/// `PROPTEST_CASES` requests more cases.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default().cases
    } else {
        400
    };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn summary(world: &World) -> String {
    format!("{:#?}\n{:#?}", world.observed.object.status, world.observed.replica_sets)
}

proptest! {
    #![proptest_config(config())]

    /// I1 to I17 for any situation: `World::plan` checks them all.
    #[test]
    fn any_situation_has_a_plan_that_keeps_the_invariants(world in situation()) {
        let one = world.plan();
        prop_assert_eq!(&one, &plan(&world.observed, world.now), "the same input gives the same plan");
        prop_assert_eq!(stored(&one.status), one.status.clone(), "status survives the way to the API server and back");
    }

    /// I7: a user can roll back at any time, in one plan.
    #[test]
    fn rollback_is_one_plan_away_from_any_state(mut world in situation()) {
        world.observed.object.metadata.annotations = None;
        world.command("abort", "now");
        if world.observed.object.status.is_none() {
            return Ok(());
        }
        let plan = world.plan();
        let traffic = plan.status.traffic.clone().unwrap_or_default();
        let invalid_from_the_start = traffic.backends.is_empty();
        prop_assert!(invalid_from_the_start || traffic.backends.len() == 1, "{}", summary(&world));
        if let (Some(stable), Some(backend)) = (&plan.status.stable, traffic.backends.first()) {
            prop_assert_eq!(&stable.revision, &backend.revision);
        }
        prop_assert!(plan.status_first || traffic == world.status().traffic.unwrap_or_default());
    }

    /// I10: in a world that does not change, plans become empty. (A second plan may continue with
    /// what had to be stored first.)
    #[test]
    fn plans_come_to_rest(mut world in situation()) {
        world.step();
        for set in &mut world.observed.replica_sets {
            // The ReplicaSet controller has not acted: counts are unchanged.
            set.is_observed = true;
        }
        world.step();
        // An object without a controller was only adopted at first.
        world.step();
        // A ReplicaSet that was scaled down may be pinned again only then, and the status reports
        // the digest after that.
        world.step();
        let plan = world.plan();
        prop_assert!(plan.actions.is_empty(), "{:#?}\n{}", plan.actions, summary(&world));
        prop_assert!(plan.events.is_empty(), "{:#?}", plan.events);
        prop_assert_eq!(Some(&plan.status), world.observed.object.status.as_ref());
    }

    /// I5: however often the plan runs and whatever happens to the pods, without a pass no judged
    /// step ends.
    #[test]
    fn nothing_advances_without_a_pass(
        spec in spec(),
        rounds in proptest::collection::vec((0..4, 0..200_i64, any::<bool>()), 1..60),
    ) {
        let mut world = World::serving(json!({}));
        world.edit(spec);
        world.edit(json!({ "model": { "uri": "http://store/v2", "version": "v2" }, "paused": false, "replicas": 3,
                           "analysis": { "mode": "Custom", "gates": [{ "name": "errors", "type": "ErrorRate" }] } }));
        for (kind, seconds, follow) in rounds {
            world.step();
            if follow {
                world.pods_follow();
                world.gateways_follow();
            }
            world.pass(seconds);
            let generation = world.status().traffic.map_or(0, |it| it.generation);
            match kind {
                0 => world.observed.evidence = None,
                1 => world.read(generation, "errors", GateReading::ProviderDown("down".into())),
                2 => world.errors((0.0, 20.0), (0.0, 400.0)),
                _ => world.read(generation - 1, "errors", GateReading::NoData("none".into())),
            }
        }
        prop_assert_eq!(world.stable(), "v1");
        let candidate = world.weights().get(1).map_or(0, |it| it.1);
        prop_assert!(candidate <= 100, "never beyond the first weight: {candidate}");
    }
}

#[test]
fn a_foreign_object_is_in_no_action() {
    let mut world = World::serving(json!({}));
    for set in &mut world.observed.replica_sets {
        set.owned = false;
    }
    let plan = world.plan();
    assert!(
        plan.actions.iter().all(|action| matches!(action, PlanAction::Apply(_))),
        "{:#?}",
        plan.actions
    );
}
