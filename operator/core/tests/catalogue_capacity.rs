//! The regression catalogue, part about sizes (`b07`, `b14` to `b16`); see `catalogue.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use common::rollouts::{all_at, canary};
use serde_json::json;
use slipway_crds::v1alpha1::RolloutStage;

/// Argo Rollouts #4919, #4973, #3848, #4261: an autoscaler that changed `spec.replicas` during a
/// rollout made the controller handle every reconcile as a scaling event, so that traffic was no
/// longer routed, or an aborted candidate grew again. Here sizes follow at once at every stage, and
/// block nothing.
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

/// Flagger #1600: during the canary the autoscaler had shrunk the primary, which had little
/// traffic, and at the promotion all of it returned to the fewest pods at once. Here no weight
/// rises before the pods that it needs are available, even if the autoscaler requests more at the
/// last step.
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

/// Flagger #1898: when the primary did not start after the promotion, the rollback sent all traffic
/// to that broken primary and deleted the healthy canary. Here stable keeps its size and its
/// traffic until the candidate has all its pods.
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

/// Argo Rollouts #4642, #4424: a step `setCanaryScale` during a rollout changed the split for a
/// moment, and together with a full promotion it computed weights above 100 %. Here a step that
/// scales writes no weights.
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
