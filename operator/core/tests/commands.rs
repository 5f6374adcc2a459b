//! User commands.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::json;
use slipway_crds::v1alpha1::RolloutStage;

fn canary(steps: serde_json::Value) -> World {
    let mut world = World::serving(json!({ "strategy": { "canary": { "steps": steps } } }));
    world.version("v2");
    world
}

#[test]
fn what_is_annotated_at_first_sight_counts_as_handled() {
    let mut world = World::new(json!({}));
    for command in ["promote", "promote-full", "abort", "retry", "pause", "resume"] {
        world.command(command, "old");
    }
    world.step();
    assert_eq!(world.status().handled_commands.len(), 6);
    world.pods_follow();
    world.gateways_follow();
    world.tick(1);
    world.version("v2");
    world.until(RolloutStage::Analyzing, 0);
}

#[test]
fn promote_ends_a_pause_once() {
    let mut world =
        canary(json!([{ "setWeight": 5 }, { "pause": {} }, { "setWeight": 50 }, { "pause": {} }]));
    world.until(RolloutStage::Paused, 1);
    assert_eq!(world.says("Paused"), "True PauseStep");
    world.tick(100_000);
    assert_eq!(world.stage(), Some(RolloutStage::Paused));
    world.command("promote", "1");
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling));
    world.until(RolloutStage::Paused, 3);
    world.tick(1);
    assert_eq!(world.stage(), Some(RolloutStage::Paused), "the same nonce does nothing");
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
    assert_eq!(
        (world.stage(), world.weights().len()),
        (Some(RolloutStage::Scaling), 1),
        "no pods, no weight"
    );
    assert!(world.status().handled_commands.is_empty(), "it waits until it can act");
    world.pods_follow();
    world.step();
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Confirming));
    world.gateways_follow();
    world.step();
    assert_eq!(
        world.status().rollout.map(|it| (it.stage, it.step_index)),
        Some((RolloutStage::Scaling, 1)),
        "not judged"
    );
    assert_eq!(world.status().handled_commands.len(), 1);
    world.pods_follow();
    world.step();
    world.gateways_follow();
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing), "the next step is judged");
}

#[test]
fn promote_full_skips_the_rest_and_never_capacity_or_confirmation() {
    let mut world = canary(json!([{ "setWeight": 5 }, { "pause": {} }, { "setWeight": 50 }]));
    world.until(RolloutStage::Analyzing, 0);
    world.command("promote-full", "1");
    world.step();
    assert_eq!(
        (world.stage(), world.size("v2"), world.weights()[1].1),
        (Some(RolloutStage::Scaling), 3, 50)
    );
    world.step();
    assert_eq!(world.weights()[1].1, 50);
    world.pods_follow();
    world.step();
    assert_eq!((world.stage(), world.weights()[1].1), (Some(RolloutStage::Confirming), 1000));
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Confirming));
    world.gateways_follow();
    world.step();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_person_who_wants_all_of_it_overrules_the_judge_and_not_the_brake() {
    let mut world = canary(json!([{ "setWeight": 5 }]));
    world.until(RolloutStage::Analyzing, 0);
    world.command("promote-full", "1");
    world.step();
    world.bad();
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling));
    world.brake(0);
    world.step();
    assert_eq!(world.says("RolledBack"), "True Braked");
}

#[test]
fn an_abort_wins_over_everything_that_comes_with_it() {
    let mut world = canary(json!([{ "setWeight": 5 }]));
    world.until(RolloutStage::Analyzing, 0);
    for command in ["promote", "promote-full", "abort", "retry"] {
        world.command(command, "1");
    }
    world.step();
    assert_eq!(world.says("RolledBack"), "True UserAborted");
    world.tick(1);
    world.tick(1);
    assert_eq!(world.stage(), Some(RolloutStage::Aborted));
    assert_eq!(world.status().handled_commands.len(), 4);
}

#[test]
fn paused_holds_every_stage_and_lets_go() {
    let mut world = canary(
        json!([{ "setWeight": 5 }, { "pause": { "durationSeconds": 10 } }, { "setWeight": 50 }]),
    );
    world.edit(json!({ "paused": true }));
    for (stage, step) in [
        (RolloutStage::Scaling, 0),
        (RolloutStage::Analyzing, 0),
        (RolloutStage::Paused, 1),
        (RolloutStage::Scaling, 2),
    ] {
        world.edit(json!({ "paused": false }));
        world.until(stage, step);
        world.edit(json!({ "paused": true }));
        let weights = world.weights();
        for _ in 0..5 {
            world.good();
            world.tick(60);
            assert_eq!(
                (world.stage(), world.weights()),
                (Some(stage), weights.clone()),
                "{stage:?}"
            );
        }
        assert_eq!(world.says("Paused"), "True UserPaused");
    }
    world.command("promote", "1");
    world.tick(1);
    assert_eq!(world.stage(), Some(RolloutStage::Scaling), "what is asked for meanwhile waits");
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
    world.until(RolloutStage::Analyzing, 0);
    world.tick(1);
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
}

#[test]
fn retry_of_a_revision_that_the_spec_no_longer_asks_for_does_nothing() {
    let mut world = canary(json!([{ "setWeight": 5 }]));
    world.until(RolloutStage::Analyzing, 0);
    world.command("abort", "1");
    world.settle();
    world.version("v1");
    world.command("retry", "1");
    world.tick(1);
    world.tick(1);
    assert_eq!((world.stage(), world.stable().as_str()), (None, "v1"));
}

/// The value that `kubectl slipway` writes for the current revision and step.
fn bound(world: &World, nonce: &str) -> String {
    let rollout = world.status().rollout.unwrap();
    format!("{}/{}/{nonce}/ann@example.org", rollout.revision, rollout.step_index)
}

/// Regression: a promotion given for a pause that had just ended skipped the judge of the next
/// step.
#[test]
fn a_command_for_a_step_that_is_over_does_nothing_and_says_so() {
    let mut world = canary(
        json!([{ "setWeight": 5 }, { "pause": { "durationSeconds": 10 } }, { "setWeight": 50 }]),
    );
    world.until(RolloutStage::Paused, 1);
    let promote = bound(&world, "1");
    world.until(RolloutStage::Scaling, 2);
    world.command("promote", &promote);
    world.until(RolloutStage::Analyzing, 2);
    world.tick(1);
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing), "the step is judged");
    let told = world.events.iter().find(|event| event.starts_with("CommandIgnored")).unwrap();
    assert!(told.contains("promote by ann@example.org") && told.contains("step 2"), "{told}");
    let right = bound(&world, "2");
    world.command("promote", &right);
    world.finish();
    assert_eq!(world.stable(), "v2");
}

#[test]
fn a_command_for_another_revision_does_nothing() {
    let mut world = canary(json!([{ "setWeight": 5 }]));
    world.until(RolloutStage::Analyzing, 0);
    let commands = ["abort", "promote", "promote-full", "pause"];
    let values = commands.map(|_| bound(&world, "1"));
    world.version("v3");
    world.step();
    world.until(RolloutStage::Analyzing, 0);
    for (command, value) in commands.iter().zip(&values) {
        world.command(command, value);
    }
    world.tick(1);
    assert_eq!(
        (world.stage(), world.says("Paused").as_str()),
        (Some(RolloutStage::Analyzing), "absent")
    );
    assert_eq!(world.events.iter().filter(|event| event.starts_with("CommandIgnored")).count(), 4);
    assert_eq!(
        world.status().handled_commands.len(),
        4,
        "none waits for the revision to come back"
    );
}

/// A manifest that contains commands, or a command that waited while no operator was the leader.
#[test]
fn a_bare_command_that_stood_there_when_a_rollout_began_does_nothing() {
    for command in ["abort", "promote", "promote-full", "pause"] {
        let mut world = canary(json!([{ "setWeight": 5 }]));
        world.command(command, "1");
        world.until(RolloutStage::Analyzing, 0);
        world.tick(1);
        assert_eq!(
            (world.stage(), world.says("Paused").as_str()),
            (Some(RolloutStage::Analyzing), "absent"),
            "{command}"
        );
    }
}

#[test]
fn the_history_says_who_did_what() {
    let mut world = canary(json!([{ "setWeight": 5 }, { "pause": {} }, { "setWeight": 50 }]));
    world.until(RolloutStage::Analyzing, 0);
    for command in ["promote", "promote"] {
        let value = bound(&world, "1");
        world.command(command, &value);
        world.tick(1);
    }
    world.until(RolloutStage::Analyzing, 2);
    world.command("abort", "1");
    world.step();
    let record = world.status().history.remove(0);
    let done: Vec<_> = record
        .commands
        .iter()
        .map(|it| format!("{} {} {}", it.command, it.user, it.step))
        .collect();
    assert_eq!(
        done,
        ["promote ann@example.org 1/4", "promote ann@example.org 2/4", "abort unknown 3/4"]
    );
    assert!(record.message.contains("aborted by unknown"), "{}", record.message);
    let retry = bound(&world, "2");
    world.settle();
    world.command("retry", &retry);
    world.step();
    let rollout = world.status().rollout.unwrap();
    let done: Vec<_> =
        rollout.commands.iter().map(|it| (it.command.as_str(), it.user.as_str())).collect();
    assert_eq!((rollout.stage, done), (RolloutStage::Scaling, vec![("retry", "ann@example.org")]));
}

#[test]
fn pause_holds_until_resume_and_no_longer_than_the_rollout() {
    let mut world = canary(json!([{ "setWeight": 5 }, { "setWeight": 50 }]));
    world.until(RolloutStage::Analyzing, 0);
    let pause = bound(&world, "1");
    world.command("pause", &pause);
    for _ in 0..5 {
        world.good();
        world.tick(60);
        assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
    }
    assert_eq!(world.says("Paused"), "True UserPaused");
    assert!(world.status().message.contains("ann@example.org holds"), "{}", world.status().message);
    world.command("promote", "1");
    world.tick(1);
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing), "what is asked for meanwhile waits");
    world.command("resume", "1");
    world.step();
    assert_ne!(
        (world.stage(), world.status().rollout.unwrap().step_index),
        (Some(RolloutStage::Analyzing), 0)
    );
    assert_eq!(world.says("Paused"), "absent");
    world.until(RolloutStage::Analyzing, 1);
    world.command("pause", "2");
    world.tick(1);
    world.command("abort", "1");
    world.step();
    assert_eq!(world.says("RolledBack"), "True UserAborted", "an abort works all the same");
    world.version("v3");
    world.until(RolloutStage::Analyzing, 0);
}
