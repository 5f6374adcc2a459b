//! The regression catalogue: bugs of other tools for progressive delivery, numbered `b01` to `b20`.
//! Where known, the numbers of issues and pull requests in the public repositories
//! argoproj/argo-rollouts and fluxcd/flagger are given.
//!
//! `b02` to `b06` are in `catalogue_evidence.rs`, `b07` and `b14` to `b16` in
//! `catalogue_capacity.rs`. Two are not tests of the plan alone. `b12`, a controller that crashes
//! between two writes, runs beside a second one or acts on a stale view (Argo Rollouts #2117,
//! #4073, #3316), is what `operator/sim` simulates in every world. `b18`, many rollouts that begin
//! at once and starve each other (Flagger #1069, #638), is `operator/tests/apiserver_many.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use common::rollouts::{all_at, canary, steps};
use serde_json::{Value, json};
use slipway_crds::v1alpha1::{RolloutOutcome, RolloutStage};

fn blue_green(settings: Value) -> World {
    let mut world = World::serving(
        json!({ "strategy": { "type": "BlueGreen", "blueGreen": settings, "probationSeconds": 30 } }),
    );
    world.version("v2");
    world
}

/// Argo Rollouts: when a pod of the new version was not ready, the abort of a blue-green rollout
/// scaled the new ReplicaSet to zero and left the active Service selecting it, which is a complete
/// outage. Here traffic returns first, independent of the health of the candidate, and a revision
/// that gateways may still select keeps its pods.
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

/// Argo Rollouts #4534, #4390: when a third version came during the rollout of the second, the pods
/// of the second were removed at once, while proxies still sent requests to them. Here they stay
/// until every gateway has confirmed that it sends nothing there, and for the delay after that.
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

/// Argo Rollouts #3020: a spec that returned to the stable version during a rollout moved all
/// traffic to a stable ReplicaSet that had been scaled down. Here stable keeps its size during a
/// rollout, so that returning is one switch, and the abandoned version is not blamed.
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

/// Argo Rollouts #3774, #1292, #2982: an abort without a rollout was stored and hit the next
/// rollout, and a retry after an abort did nothing or aborted again. Here a command acts once, on
/// the current rollout, and is dropped if there is none.
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
    // The abort does not affect the next rollout either.
    world.version("v2");
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling));
}

/// Argo Rollouts #3765: pods in a crash loop become ready for a moment now and then, and each time
/// the progress deadline restarted, so that the rollout never ended. Here the deadline is counted
/// from the start of the stage in the status.
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

/// Flagger and OpenKruise Rollouts keep timed waits (jobs, grace periods) in the memory of the
/// process: a restart of the controller during one shortened it, or advanced twice. Here all times
/// are in the status, and the plan itself has no state.
#[test]
fn b13_a_restart_shortens_no_pause() {
    let mut world = World::serving(json!({ "strategy": { "canary": { "steps": [
        { "setWeight": 5 }, { "pause": { "durationSeconds": 300 } }, { "setWeight": 100 } ] } } }));
    world.version("v2");
    world.until(RolloutStage::Paused, 1);
    // The plan has no state of its own: every call is like a restart.
    let plan = world.step();
    assert!(plan.wake_at.is_some_and(|at| at.duration_since(world.now).as_secs() <= 300));
    world.pass(298);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Paused));
    world.pass(2);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Scaling));
}

/// The Gateway API plugin of Argo Rollouts (#203, #158, #208) rewrote rules, backends and labels of
/// other owners in the routes that it managed. Here no action concerns an object that this
/// ModelDeployment does not control; fields are owned by server-side apply.
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

/// Argo Rollouts #4971, #2982: an expired scale-down deadline in an annotation made the controller
/// reconcile one rollout a thousand times a minute. Here a plan wakes only at times in the future.
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

/// Argo Rollouts #2091: a spec that became invalid during a rollout was an error that was retried
/// every 20 s, without a message about the cause, and sometimes the rollout did not continue after
/// the correction. Here traffic does not change, a condition gives the cause, and the rollout
/// continues when the spec is valid again.
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
