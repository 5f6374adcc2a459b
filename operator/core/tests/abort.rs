//! Rollback of a candidate: its causes, its order, and when its pods may be removed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::json;
use slipway_crds::v1alpha1::{RolloutOutcome, RolloutStage};

fn canary() -> World {
    let mut world =
        World::serving(json!({ "strategy": { "canary": { "steps": [{ "setWeight": 50 }] } } }));
    world.version("v2");
    world
}

fn all_at(world: &World, version: &str) -> bool {
    world.weights() == [(version.to_owned(), 1000)]
}

#[test]
fn a_failing_gate_takes_the_candidate_back() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.bad();
    let plan = world.step();
    assert!(plan.status_first && plan.evidence.is_none());
    assert!(all_at(&world, "v1"));
    assert_eq!(world.says("RolledBack"), "True GateFailed");
    assert_eq!(world.says("GatePassed"), "False Fail");
    assert_eq!(world.says("Stalled"), "True GateFailed");
    let record = world.status().history[0].clone();
    assert_eq!(
        (record.outcome, record.reason.as_str()),
        (RolloutOutcome::RolledBack, "GateFailed")
    );
    assert!(record.message.contains("errors"), "{}", record.message);
    assert_eq!(plan.events.len(), 1);
    assert!(plan.events[0].warning);
}

#[test]
fn a_gate_that_fails_during_a_pause_takes_the_candidate_back() {
    let mut world = World::serving(
        json!({ "strategy": { "canary": { "steps": [{ "setWeight": 50 }, { "pause": {} }] } } }),
    );
    world.version("v2");
    world.until(RolloutStage::Paused, 1);
    world.bad();
    world.step();
    assert_eq!(world.says("RolledBack"), "True GateFailed");
}

#[test]
fn a_gate_that_fails_while_a_person_holds_the_rollout_takes_the_candidate_back() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.edit(json!({ "paused": true }));
    world.good();
    world.step();
    assert_eq!(
        (world.stage(), world.says("Paused").as_str()),
        (Some(RolloutStage::Analyzing), "True UserPaused")
    );
    world.bad();
    world.step();
    assert_eq!(world.says("RolledBack"), "True GateFailed");
}

#[test]
fn a_brake_of_any_gateway_takes_the_candidate_back() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.brake(1);
    world.step();
    assert!(all_at(&world, "v1"));
    assert_eq!(world.says("RolledBack"), "True Braked");
    assert!(world.condition("RolledBack").message.contains("gateway-b"));
}

#[test]
fn a_brake_that_is_kept_into_the_next_weight_counts() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.brake(0);
    let generation = world.status().traffic.unwrap().generation;
    // The weight increased while the report was in transit; the gateway's brake still holds.
    world.observed.object.status.as_mut().unwrap().traffic.as_mut().unwrap().generation =
        generation + 1;
    world.observed.gateway.pods[0].report.as_mut().unwrap().generation = generation + 1;
    world.step();
    assert_eq!(world.says("RolledBack"), "True Braked");
}

#[test]
fn an_old_brake_does_not_meet_a_retry() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.brake(0);
    world.step();
    // A lagging gateway still reports the brake.
    world.gateway_follows(1);
    world.command("retry", "1");
    for _ in 0..3 {
        world.step();
        world.pods_follow();
        world.gateway_follows(1);
    }
    assert_eq!(world.stage(), Some(RolloutStage::Scaling), "it waits for the gateway that lags");
    world.gateway_follows(0);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Confirming));
}

#[test]
fn an_abort_waits_for_nothing_and_pods_wait_for_every_gateway() {
    let mut world = canary();
    world.until(RolloutStage::Confirming, 0);
    // Half confirmed, paused by a user, no data from Prometheus, pods gone, replicas changed: none
    // of it matters.
    world.gateway_follows(0);
    world.edit(json!({ "paused": true, "replicas": 7 }));
    let set = world.set_mut("v2");
    (set.ready, set.available) = (0, 0);
    world.command("abort", "1");
    world.step();
    assert!(all_at(&world, "v1"));
    let before = world.size("v2");
    for _ in 0..5 {
        world.gateway_follows(0);
        world.step();
        world.pass(100);
        assert_eq!(world.size("v2"), before, "one gateway has not confirmed");
    }
    world.gateway_follows(1);
    world.step();
    assert!(world.status().rollout.unwrap().abort.unwrap().traffic_left_time.is_some());
    assert_eq!(world.size("v2"), 0);
}

#[test]
fn requests_in_flight_keep_the_pods_for_as_long_as_a_request_may_take() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    let candidate = world.status().candidate.unwrap().revision;
    world.command("abort", "1");
    world.step();
    world.gateways_follow();
    world.observed.gateway.pods[0].report.as_mut().unwrap().in_flight.insert(candidate.clone(), 1);
    let plan = world.step();
    assert_eq!(world.size("v2"), 2);
    let left = world.now;
    assert_eq!(plan.wake_at.map(|at| at.duration_since(left).as_secs()), Some(30));
    world.pass(29);
    world.step();
    assert_eq!(world.size("v2"), 2);
    world.pass(1);
    world.step();
    assert_eq!(world.size("v2"), 0);
}

#[test]
fn a_gateway_that_is_leaving_with_old_weights_keeps_the_pods() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.observed.gateway.pods[0].ready = false;
    world.command("abort", "1");
    world.step();
    world.gateway_follows(1);
    world.pass(60);
    world.step();
    assert_eq!(world.size("v2"), 2);
    world.observed.gateway.pods.remove(0);
    world.step();
    assert_eq!(world.size("v2"), 0);
}

#[test]
fn a_model_that_cannot_be_loaded_is_taken_back_at_once() {
    let mut world = canary();
    world.step();
    let line = r#"{"reason":"DigestMismatch","message":"digest is sha256:ab, want sha256:cd","permanent":true}"#;
    world.problem("v2", line, 0);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling), "the first failure may be the last");
    world.observed.pod_problems[0].restarts = 1;
    world.step();
    assert_eq!(world.says("RolledBack"), "True ModelLoadFailed");
    assert!(world.condition("RolledBack").message.contains("digest is sha256:ab, want sha256:cd"));
}

#[test]
fn a_failure_that_may_pass_is_given_the_deadline() {
    let mut world = canary();
    world.step();
    world.problem("v2", r#"{"reason":"DownloadFailed","message":"timeout","permanent":false}"#, 5);
    world.step();
    world.pass(599);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling));
    assert!(world.condition("Reconciling").message.contains("DownloadFailed"));
    world.pass(1);
    world.step();
    assert_eq!(world.says("RolledBack"), "True ProgressDeadlineExceeded");
}

#[test]
fn the_first_revision_is_tried_until_it_comes_up() {
    let mut world = World::new(json!({}));
    world.step();
    world.problem(
        "v1",
        r#"{"reason":"ModelNotFound","message":"404 at http://store/v1","permanent":true}"#,
        4,
    );
    world.pass(100_000);
    world.step();
    assert_eq!(world.says("Ready"), "False ModelLoadFailed");
    assert!(world.condition("Ready").message.contains("404 at http://store/v1"));
    assert_eq!(world.sizes(), [("v1".to_owned(), 3)]);
    // After a correction of the spec the next revision starts without a rollout, too.
    world.observed.pod_problems.clear();
    world.version("v1b");
    world.step();
    assert_eq!((world.stage(), world.weights()), (None, vec![("v1b".to_owned(), 1000)]));
    world.set_mut("v1b").ready = 1;
    world.step();
    assert_eq!(world.stable(), "v1b");
    world.gateways_follow();
    world.pass(60);
    world.step();
    world.pass(60);
    world.step();
    assert_eq!(world.size("v1"), 0);
}

#[test]
fn a_step_that_is_held_too_long_waits_for_a_person() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.pass(3598);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
    world.pass(2);
    let plan = world.step();
    assert_eq!(
        (world.stage(), world.says("Paused").as_str()),
        (Some(RolloutStage::Paused), "True HoldExceeded")
    );
    assert!(plan.events[0].warning);
    world.good();
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Paused), "only a person ends it");
    world.command("promote", "1");
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_step_that_is_held_too_long_may_be_taken_back() {
    let mut world = canary();
    world.edit(json!({ "analysis": { "onHoldExceeded": "Abort", "maxHoldSeconds": 60 } }));
    world.until(RolloutStage::Analyzing, 0);
    world.pass(61);
    world.step();
    assert_eq!(world.says("RolledBack"), "True HoldExceeded");
}

/// Two gateways report, so the number of requests doubles.
#[test]
fn a_weight_at_which_nothing_was_ever_answered_is_left_when_its_hold_ends() {
    for policy in ["Pause", "Abort"] {
        let mut world = canary();
        world.edit(json!({ "analysis": { "onHoldExceeded": policy, "maxHoldSeconds": 60 } }));
        world.until(RolloutStage::Analyzing, 0);
        world.answers(40, 10, Some(0));
        world.pass(58);
        world.step();
        assert_eq!(world.stage(), Some(RolloutStage::Analyzing), "not before");
        world.pass(2);
        let plan = world.step();
        assert_eq!(
            (world.stage(), world.says("RolledBack").as_str()),
            (Some(RolloutStage::Aborted), "True NeverAnswered")
        );
        assert_eq!(world.weights(), [("v1".to_owned(), 1000)]);
        let why = "no verdict after 60 s at weight 50%, and none of 60 requests to the candidate was answered";
        assert!(
            world.condition("RolledBack").message.contains(why),
            "{}",
            world.condition("RolledBack").message
        );
        assert!(plan.events[0].warning && plan.events[0].note.contains(why));
    }
}

#[test]
fn what_is_not_known_to_have_failed_is_waited_for() {
    let waits = |tell: &dyn Fn(&mut World)| {
        let mut world = canary();
        world.edit(json!({ "analysis": { "maxHoldSeconds": 60 } }));
        world.until(RolloutStage::Analyzing, 0);
        tell(&mut world);
        world.pass(61);
        world.step();
        assert_eq!(
            (world.stage(), world.says("Paused").as_str()),
            (Some(RolloutStage::Paused), "True HoldExceeded")
        );
        world
    };
    waits(&|world| world.answers(0, 0, Some(0)));
    waits(&|world| world.answers(200, 200, Some(0)));
    waits(&|world| world.answers(4, 0, Some(0)));
    waits(&|world| world.answers(200, 0, Some(1)));
    waits(&|world| world.answers(200, 0, None));
    waits(&|world| world.observed.gateway.pods[1].report = None);
    // Prometheus has answers from before a gateway was replaced.
    waits(&|world| {
        world.answers(200, 0, Some(0));
        world.errors((5.0, 1.0), (0.0, 10.0));
    });

    // A report that arrives later counts from then on, unless a user has promoted the step.
    let mut world = waits(&|world| world.answers(200, 0, None));
    world.answers(300, 0, Some(0));
    let mut ordered = world.clone();
    world.step();
    assert_eq!(world.says("RolledBack"), "True NeverAnswered");
    ordered.command("promote", "1");
    ordered.step();
    assert_eq!(
        (ordered.stage(), ordered.says("RolledBack").as_str()),
        (Some(RolloutStage::Scaling), "absent")
    );
}

#[test]
fn a_pass_that_comes_with_the_bell_counts() {
    let mut world = canary();
    world.edit(json!({ "analysis": { "onHoldExceeded": "Abort", "maxHoldSeconds": 60 } }));
    world.until(RolloutStage::Analyzing, 0);
    world.pass(61);
    world.good();
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling));
}

#[test]
fn rollback_is_armed_during_probation() {
    let mut world = World::serving(
        json!({ "strategy": { "canary": { "steps": [{ "setWeight": 50 }] }, "probationSeconds": 600 },
        "analysis": { "mode": "Custom", "gates": [{ "name": "accuracy", "type": "PromQL",
            "promQL": { "query": "x{r='{{candidate}}'}", "min": "900m", "consecutiveCount": 1, "initialDelaySeconds": 0 } }] } }),
    );
    world.version("v2");
    world.until(RolloutStage::Analyzing, 0);
    let read = |world: &mut World, value: f64| {
        world.pass(1);
        let generation = world.status().traffic.unwrap().generation;
        world.read(generation, "accuracy", slipway_judge::evidence::GateReading::Value(value));
    };
    read(&mut world, 0.95);
    world.step();
    world.until(RolloutStage::Probation, 1);
    assert_eq!((world.size("v1"), world.size("v2")), (3, 3));
    assert!(world.plan().evidence.is_some());
    read(&mut world, 0.5);
    world.step();
    assert!(all_at(&world, "v1"));
    assert_eq!(world.says("RolledBack"), "True GateFailed");
}
