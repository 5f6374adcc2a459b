//! A canary from its first pod to its promotion.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::json;
use slipway_crds::v1alpha1::{RolloutOutcome, RolloutStage};

fn sizes(world: &World) -> Vec<i32> {
    world.sizes().into_iter().map(|(_, size)| size).collect()
}

fn weights(world: &World) -> Vec<i32> {
    world.weights().into_iter().map(|(_, weight)| weight).collect()
}

fn two_weights() -> serde_json::Value {
    json!({ "strategy": { "canary": { "steps": [{ "setWeight": 5 }, { "setWeight": 100 }] } } })
}

#[test]
fn the_first_revision_takes_everything_without_steps() {
    let mut world = World::new(json!({}));
    world.step();
    assert_eq!((sizes(&world), weights(&world)), (vec![3], vec![1000]));
    assert_eq!(world.says("Ready"), "False Initializing");
    assert_eq!(world.stable(), "");
    world.pods_follow();
    world.step();
    assert_eq!(world.stable(), "v1");
    assert_eq!(world.says("Ready"), "True Stable");
    world.settle();
    assert!(world.plan().actions.is_empty());
}

#[test]
fn a_good_candidate_goes_through_every_step_to_promotion() {
    let mut world = World::serving(two_weights());
    world.version("v2");
    world.step();
    assert_eq!(
        (world.stage(), sizes(&world), weights(&world)),
        (Some(RolloutStage::Scaling), vec![3, 1], vec![1000])
    );
    world.step();
    assert_eq!(weights(&world), [1000], "no weight without capacity");
    world.pods_follow();
    world.step();
    assert_eq!((world.stage(), weights(&world)), (Some(RolloutStage::Confirming), vec![950, 50]));
    world.gateway_follows(0);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Confirming), "one gateway is not all");
    world.gateways_follow();
    let plan = world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
    assert!(plan.evidence.is_some());
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing), "no evidence, no advance");
    world.good();
    world.step();
    assert_eq!(
        (world.stage(), sizes(&world), weights(&world)),
        (Some(RolloutStage::Scaling), vec![3, 3], vec![950, 50])
    );
    world.pods_follow();
    world.step();
    assert_eq!((world.stage(), weights(&world)), (Some(RolloutStage::Confirming), vec![0, 1000]));
    world.gateways_follow();
    world.step();
    assert_eq!((world.stage(), world.stable().as_str(), weights(&world)), (None, "v2", vec![1000]));
    world.gateways_follow();
    world.tick(29);
    world.step();
    assert_eq!(sizes(&world), [3, 3], "the old revision stays for the delay");
    world.pass(2);
    world.step();
    assert_eq!(sizes(&world), [0, 3]);
    world.settle();
    assert!(world.plan().actions.is_empty());
    let history = world.status().history;
    assert_eq!(
        (history.len(), history[0].outcome, history[0].steps.len()),
        (1, RolloutOutcome::Promoted, 2)
    );
    assert_eq!(world.says("Reconciling"), "absent");
}
