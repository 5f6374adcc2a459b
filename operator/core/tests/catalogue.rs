//! The regression catalogue: bugs that other progressive delivery tools had, by the numbers of
//! appendix B of our survey.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::{Value, json};
use slipway_crds::v1alpha1::{RolloutOutcome, RolloutStage};

fn steps(weights: &[i32]) -> Value {
    let steps: Vec<Value> = weights.iter().map(|weight| json!({ "setWeight": weight })).collect();
    json!({ "strategy": { "canary": { "steps": steps } } })
}

fn canary(version: &str) -> World {
    let mut world = World::serving(steps(&[5, 50, 100]));
    world.version(version);
    world
}

fn blue_green(settings: Value) -> World {
    let mut world = World::serving(
        json!({ "strategy": { "type": "BlueGreen", "blueGreen": settings, "probationSeconds": 30 } }),
    );
    world.version("v2");
    world
}

fn all_at(world: &World, version: &str) -> bool {
    world.weights() == [(version.to_owned(), 1000)]
}

#[test]
fn b01_an_abort_returns_traffic_however_many_new_pods_are_unready() {
    for unready in 1..=3 {
        let mut world = blue_green(json!({}));
        world.until(RolloutStage::Probation, 1);
        assert_eq!(world.weights(), [("v1".to_owned(), 0), ("v2".to_owned(), 1000)]);
        let set = world.set_mut("v2");
        (set.ready, set.available) = (3 - unready, 3 - unready);
        world.command("abort", "1");
        let plan = world.step();
        assert!(plan.status_first && all_at(&world, "v1"), "{unready} unready");
        assert_eq!(
            (world.size("v1"), world.size("v2")),
            (3, 3),
            "nobody shrinks before the gateways confirmed"
        );
        world.gateways_follow();
        world.settle();
        assert_eq!((world.size("v1"), world.size("v2")), (3, 0));
    }
}

#[test]
fn b07_replicas_may_change_at_any_moment() {
    for (stage, step) in [
        (RolloutStage::Scaling, 0),
        (RolloutStage::Confirming, 0),
        (RolloutStage::Analyzing, 0),
        (RolloutStage::Scaling, 1),
        (RolloutStage::Analyzing, 1),
        (RolloutStage::Confirming, 2),
    ] {
        for replicas in [1, 9] {
            let mut world = canary("v2");
            world.until(stage, step);
            world.edit(json!({ "replicas": replicas }));
            world.step();
            let stable = world.stable();
            assert_eq!(world.size(&stable), replicas, "stable follows at {stage:?} {step}");
            world.finish();
            assert_eq!(
                (world.stable().as_str(), world.size("v2")),
                ("v2", replicas),
                "{stage:?} {step}"
            );
        }
    }
}

#[test]
fn b07_replicas_may_change_during_an_abort() {
    for replicas in [1, 9] {
        let mut world = canary("v2");
        world.until(RolloutStage::Analyzing, 1);
        world.command("abort", "1");
        world.step();
        world.edit(json!({ "replicas": replicas }));
        world.step();
        assert!(all_at(&world, "v1"), "traffic does not wait for sizes");
        assert_eq!(world.size("v1"), replicas);
        assert!(
            world.size("v2") >= 2.max((replicas + 1) / 2),
            "what gateways may still send needs {replicas} / 2"
        );
        world.gateways_follow();
        world.settle();
        assert_eq!((world.size("v1"), world.size("v2")), (replicas, 0));
    }
}

#[test]
fn b07_replicas_may_change_during_the_delay_after_promotion() {
    let mut world = canary("v2");
    world.finish();
    world.edit(json!({ "replicas": 5 }));
    world.tick(1);
    assert_eq!((world.size("v1"), world.size("v2")), (3, 5));
    world.pass(60);
    world.settle();
    assert_eq!((world.size("v1"), world.size("v2")), (0, 5));
}

#[test]
fn b08_a_third_version_takes_the_place_of_the_second_at_every_step() {
    for (stage, step) in [
        (RolloutStage::Scaling, 0),
        (RolloutStage::Confirming, 0),
        (RolloutStage::Analyzing, 0),
        (RolloutStage::Scaling, 1),
        (RolloutStage::Analyzing, 1),
        (RolloutStage::Confirming, 2),
    ] {
        let mut world = canary("v2");
        world.until(stage, step);
        let before = world.size("v2");
        let had = world.weights().len() > 1;
        world.version("v3");
        let plan = world.step();
        assert!(all_at(&world, "v1"), "traffic goes to stable first");
        assert!(plan.status_first || !had);
        let record = world.status().history[0].clone();
        assert_eq!((record.outcome, record.version.as_str()), (RolloutOutcome::Superseded, "v2"));
        assert_eq!(
            (world.stage(), world.status().rollout.unwrap().step_index),
            (Some(RolloutStage::Scaling), 0)
        );
        if had {
            assert_eq!(world.size("v2"), before, "its pods stay until no gateway sends to it");
            world.gateways_follow();
            world.tick(10);
            assert_eq!(world.size("v2"), before, "and for the delay");
        }
        world.finish();
        world.tick(60);
        world.settle();
        assert_eq!((world.stable().as_str(), world.size("v2")), ("v3", 0), "{stage:?} {step}");
    }
}

#[test]
fn b09_going_back_to_the_stable_content_blames_nobody() {
    let mut world = canary("v2");
    world.until(RolloutStage::Analyzing, 1);
    world.version("v1");
    world.step();
    assert!(all_at(&world, "v1"));
    assert_eq!(world.stage(), None);
    let record = world.status().history[0].clone();
    assert_eq!((record.outcome, record.reason.as_str()), (RolloutOutcome::Superseded, "Reverted"));
    assert_eq!(world.says("RolledBack"), "absent");
    assert_eq!((world.size("v1"), world.size("v2")), (3, 2), "stable was whole all the time");
    world.gateways_follow();
    world.tick(60);
    world.settle();
    assert_eq!((world.size("v1"), world.size("v2")), (3, 0));
}

#[test]
fn b09_going_back_after_promotion_is_a_rollout_that_uses_the_old_pods() {
    let mut world = canary("v2");
    world.finish();
    world.tick(60);
    world.settle();
    assert_eq!(world.size("v1"), 0);
    let uid = world.set("v1").uid.clone();
    world.version("v1");
    world.finish();
    assert_eq!(
        (world.stable().as_str(), world.set("v1").uid.as_str(), world.size("v1")),
        ("v1", uid.as_str(), 3)
    );
}

#[test]
fn b10_abort_retry_abort() {
    let mut world = canary("v2");
    world.until(RolloutStage::Analyzing, 1);
    world.command("abort", "1");
    world.settle();
    assert_eq!(
        (world.stage(), world.says("RolledBack").as_str()),
        (Some(RolloutStage::Aborted), "True UserAborted")
    );
    world.command("abort", "2");
    world.tick(1);
    assert_eq!(world.status().history.len(), 1, "there is nothing to abort");
    world.command("retry", "1");
    world.step();
    assert_eq!(
        world.status().rollout.as_ref().map(|it| (it.stage, it.step_index)),
        Some((RolloutStage::Scaling, 0))
    );
    assert_eq!(world.says("RolledBack"), "absent");
    world.until(RolloutStage::Analyzing, 0);
    world.command("abort", "3");
    world.settle();
    assert_eq!((world.status().history.len(), world.size("v2")), (2, 0));
    world.command("retry", "2");
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn b10_an_abort_without_a_rollout_does_nothing() {
    let mut world = World::serving(json!({}));
    let before = world.status();
    world.command("abort", "1");
    world.step();
    let mut after = world.status();
    assert_eq!(after.handled_commands.remove("ml.slipway.dev/abort").as_deref(), Some("1"));
    assert_eq!(after, before);
    // And is not remembered against the next one.
    world.version("v2");
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling));
}

#[test]
fn b11_crash_loops_do_not_reset_the_deadline() {
    let mut world = canary("v2");
    world.step();
    world.problem("v2", "exit 137", 3);
    for second in 0..610 {
        if world.stage() == Some(RolloutStage::Aborted) {
            assert!(second >= 600, "{second}");
            break;
        }
        let set = world.set_mut("v2");
        (set.ready, set.is_observed, set.current) = (second % 2, true, 1);
        world.step();
        world.pass(1);
    }
    assert_eq!(world.says("RolledBack"), "True ProgressDeadlineExceeded");
    assert!(world.condition("RolledBack").message.contains("exit 137"));
}

#[test]
fn b13_a_restart_shortens_no_pause() {
    let mut world = World::serving(json!({ "strategy": { "canary": { "steps": [
        { "setWeight": 5 }, { "pause": { "durationSeconds": 300 } }, { "setWeight": 100 } ] } } }));
    world.version("v2");
    world.until(RolloutStage::Paused, 1);
    // The plan has no memory of its own: every call is a restart.
    let plan = world.step();
    assert!(plan.wake_at.is_some_and(|at| at.duration_since(world.now).as_secs() <= 300));
    world.pass(298);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Paused));
    world.pass(2);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling));
}

#[test]
fn b14_capacity_comes_before_weight_also_when_the_autoscaler_asks_for_more_at_the_end() {
    let mut world = canary("v2");
    world.until(RolloutStage::Scaling, 2);
    world.edit(json!({ "replicas": 10 }));
    world.step();
    assert_eq!(world.size("v2"), 10);
    let set = world.set_mut("v2");
    (set.current, set.ready, set.available, set.is_observed) = (9, 9, 9, true);
    world.step();
    assert_eq!(world.weights()[1].1, 500);
    world.pods_follow();
    world.step();
    assert_eq!(world.weights()[1].1, 1000);
}

#[test]
fn b15_a_candidate_that_cannot_fill_up_leaves_stable_whole() {
    let mut world = canary("v2");
    world.until(RolloutStage::Scaling, 2);
    world.set_mut("v2").available = 2;
    for _ in 0..700 {
        world.step();
        world.pass(1);
    }
    assert_eq!(world.says("RolledBack"), "True ProgressDeadlineExceeded");
    assert!(all_at(&world, "v1"));
    assert_eq!(world.size("v1"), 3);
}

#[test]
fn b16_a_scale_step_moves_no_traffic() {
    let mut world = World::serving(json!({ "strategy": { "canary": { "steps": [
        { "setCanaryScale": { "replicas": 2 } }, { "setWeight": 5 }, { "setCanaryScale": { "replicas": 4 } }, { "setWeight": 50 } ] } } }));
    world.version("v2");
    world.step();
    assert_eq!((world.size("v2"), world.weights().len()), (2, 1));
    world.until(RolloutStage::Analyzing, 1);
    assert_eq!(world.size("v2"), 1, "the next weight ends what a person asked for");
    let weights = world.weights();
    world.good();
    world.step();
    assert_eq!((world.stage(), world.size("v2")), (Some(RolloutStage::Scaling), 4));
    world.step();
    assert_eq!(world.weights(), weights);
    world.pods_follow();
    world.step();
    assert_eq!(world.weights()[1].1, 500);
}

#[test]
fn b17_what_is_not_ours_is_not_touched() {
    let mut world = World::serving(json!({}));
    let mut foreign = world.set("v1").clone();
    (foreign.name, foreign.uid, foreign.owned) =
        ("digits-ffffffffff".into(), "foreign".into(), false);
    foreign.revision = "ffffffffff".into();
    world.observed.replica_sets.push(foreign);
    world.pass(1000);
    assert!(world.plan().actions.is_empty());
}

#[test]
fn b19_times_that_are_over_wake_nobody() {
    let mut world = canary("v2");
    world.until(RolloutStage::Scaling, 0);
    world.command("abort", "1");
    world.settle();
    world.pass(100_000);
    let plan = world.step();
    assert_eq!(plan.wake_at, None);
    assert!(world.plan().actions.is_empty());
}

#[test]
fn b20_a_spec_that_makes_no_sense_holds_and_heals() {
    let mut world = canary("v2");
    world.until(RolloutStage::Analyzing, 0);
    let weights = world.weights();
    world.edit(steps(&[50, 5]));
    world.good();
    world.tick(1);
    assert_eq!((world.weights(), world.stage()), (weights, Some(RolloutStage::Analyzing)));
    assert_eq!(world.says("Stalled"), "True InvalidSpec");
    assert!(world.condition("Stalled").message.contains("spec.strategy.canary.steps"));
    world.edit(steps(&[5, 50, 100]));
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn b20_an_abort_works_with_a_spec_that_makes_no_sense() {
    let mut world = canary("v2");
    world.until(RolloutStage::Analyzing, 1);
    world.edit(steps(&[50, 5]));
    world.command("abort", "1");
    world.step();
    assert!(all_at(&world, "v1"));
    world.gateways_follow();
    world.settle();
    assert_eq!((world.size("v1"), world.size("v2")), (3, 0));
}
