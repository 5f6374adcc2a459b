//! Commands of people.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::json;
use slipway_crds::v1alpha1::Stage;

fn canary(steps: serde_json::Value) -> World {
    let mut world = World::serving(json!({ "strategy": { "canary": { "steps": steps } } }));
    world.version("v2");
    world
}

#[test]
fn what_is_annotated_at_first_sight_counts_as_handled() {
    let mut world = World::new(json!({}));
    for command in ["promote", "promote-full", "abort", "retry"] {
        world.command(command, "old");
    }
    world.step();
    assert_eq!(world.status().handled_commands.len(), 4);
    world.pods_follow();
    world.gateways_follow();
    world.tick(1);
    world.version("v2");
    world.until(Stage::Analyzing, 0);
}

#[test]
fn promote_ends_a_pause_once() {
    let mut world = canary(json!([{ "setWeight": 5 }, { "pause": {} }, { "setWeight": 50 }, { "pause": {} }]));
    world.until(Stage::Paused, 1);
    assert_eq!(world.says("Paused"), "True PauseStep");
    world.tick(100_000);
    assert_eq!(world.stage(), Some(Stage::Paused));
    world.command("promote", "1");
    world.step();
    assert_eq!(world.stage(), Some(Stage::Scaling));
    world.until(Stage::Paused, 3);
    world.tick(1);
    assert_eq!(world.stage(), Some(Stage::Paused), "the same nonce does nothing");
    world.command("promote", "2");
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn promote_ends_an_analysis_and_never_skips_capacity_or_confirmation() {
    let mut world = canary(json!([{ "setWeight": 5 }, { "setWeight": 50 }]));
    world.step();
    world.command("promote", "1");
    world.step();
    assert_eq!((world.stage(), world.weights().len()), (Some(Stage::Scaling), 1), "no pods, no weight");
    assert!(world.status().handled_commands.is_empty(), "it waits until it can act");
    world.pods_follow();
    world.step();
    world.step();
    assert_eq!(world.stage(), Some(Stage::Confirming));
    world.gateways_follow();
    world.step();
    assert_eq!(world.status().rollout.map(|it| (it.stage, it.step_index)), Some((Stage::Scaling, 1)), "not judged");
    assert_eq!(world.status().handled_commands.len(), 1);
    world.pods_follow();
    world.step();
    world.gateways_follow();
    world.step();
    assert_eq!(world.stage(), Some(Stage::Analyzing), "the next step is judged");
}

#[test]
fn promote_full_skips_the_rest_and_never_capacity_or_confirmation() {
    let mut world = canary(json!([{ "setWeight": 5 }, { "pause": {} }, { "setWeight": 50 }]));
    world.until(Stage::Analyzing, 0);
    world.command("promote-full", "1");
    world.step();
    assert_eq!((world.stage(), world.size("v2"), world.weights()[1].1), (Some(Stage::Scaling), 3, 50));
    world.step();
    assert_eq!(world.weights()[1].1, 50);
    world.pods_follow();
    world.step();
    assert_eq!((world.stage(), world.weights()[1].1), (Some(Stage::Confirming), 1000));
    world.step();
    assert_eq!(world.stage(), Some(Stage::Confirming));
    world.gateways_follow();
    world.step();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_person_who_wants_all_of_it_overrules_the_judge_and_not_the_brake() {
    let mut world = canary(json!([{ "setWeight": 5 }]));
    world.until(Stage::Analyzing, 0);
    world.command("promote-full", "1");
    world.step();
    world.bad();
    world.step();
    assert_eq!(world.stage(), Some(Stage::Scaling));
    world.brake(0);
    world.step();
    assert_eq!(world.says("RolledBack"), "True Braked");
}

#[test]
fn an_abort_wins_over_everything_that_comes_with_it() {
    let mut world = canary(json!([{ "setWeight": 5 }]));
    world.until(Stage::Analyzing, 0);
    for command in ["promote", "promote-full", "abort", "retry"] {
        world.command(command, "1");
    }
    world.step();
    assert_eq!(world.says("RolledBack"), "True UserAborted");
    world.tick(1);
    world.tick(1);
    assert_eq!(world.stage(), Some(Stage::Aborted));
    assert_eq!(world.status().handled_commands.len(), 4);
}

#[test]
fn paused_holds_every_stage_and_lets_go() {
    let mut world = canary(json!([{ "setWeight": 5 }, { "pause": { "durationSeconds": 10 } }, { "setWeight": 50 }]));
    world.edit(json!({ "paused": true }));
    for (stage, step) in [(Stage::Scaling, 0), (Stage::Analyzing, 0), (Stage::Paused, 1), (Stage::Scaling, 2)] {
        world.edit(json!({ "paused": false }));
        world.until(stage, step);
        world.edit(json!({ "paused": true }));
        let weights = world.weights();
        for _ in 0..5 {
            world.good();
            world.tick(60);
            assert_eq!((world.stage(), world.weights()), (Some(stage), weights.clone()), "{stage:?}");
        }
        assert_eq!(world.says("Paused"), "True UserPaused");
    }
    world.command("promote", "1");
    world.tick(1);
    assert_eq!(world.stage(), Some(Stage::Scaling), "what is asked for meanwhile waits");
    world.edit(json!({ "paused": false }));
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_promotion_meant_for_one_candidate_does_not_promote_the_next() {
    let mut world = canary(json!([{ "setWeight": 5 }]));
    world.step();
    world.command("promote", "1");
    world.step();
    assert!(world.status().handled_commands.is_empty());
    world.version("v3");
    world.until(Stage::Analyzing, 0);
    world.tick(1);
    assert_eq!(world.stage(), Some(Stage::Analyzing));
}

#[test]
fn retry_of_a_revision_that_the_spec_no_longer_asks_for_does_nothing() {
    let mut world = canary(json!([{ "setWeight": 5 }]));
    world.until(Stage::Analyzing, 0);
    world.command("abort", "1");
    world.settle();
    world.version("v1");
    world.command("retry", "1");
    world.tick(1);
    world.tick(1);
    assert_eq!((world.stage(), world.stable().as_str()), (None, "v1"));
}
