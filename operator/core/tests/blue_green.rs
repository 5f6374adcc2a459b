//! Blue-green.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::{Value, json};
use slipway_crds::v1alpha1::RolloutStage;
use slipway_objects::ManagedKind;

fn blue_green(settings: Value) -> World {
    let mut world = World::serving(
        json!({ "strategy": { "type": "BlueGreen", "blueGreen": settings, "probationSeconds": 30 } }),
    );
    world.version("v2");
    world
}

#[test]
fn green_comes_up_whole_behind_the_preview_and_waits_for_a_person() {
    let mut world = blue_green(json!({ "autoPromotionEnabled": false }));
    assert!(world.observed.child(ManagedKind::Service, "digits-preview").is_some());
    world.step();
    assert_eq!((world.stage(), world.size("v2")), (Some(RolloutStage::Scaling), 3));
    assert_eq!(world.status().traffic.unwrap().preview_revision, None);
    world.pods_follow();
    world.step();
    let traffic = world.status().traffic.unwrap();
    assert_eq!(
        (world.stage(), traffic.preview_revision),
        (Some(RolloutStage::Preview), world.status().candidate.map(|it| it.revision))
    );
    assert_eq!(world.weights(), [("v1".to_owned(), 1000)]);
    world.gateways_follow();
    world.tick(100_000);
    assert_eq!(world.stage(), Some(RolloutStage::Preview));
    world.command("promote", "1");
    world.until(RolloutStage::Probation, 1);
    assert_eq!((world.size("v1"), world.size("v2")), (3, 3));
    world.tick(29);
    assert_eq!(world.stage(), Some(RolloutStage::Probation));
    world.finish();
    assert_eq!(
        (world.stable().as_str(), world.status().traffic.unwrap().preview_revision),
        ("v2", None)
    );
    world.settle();
    world.pass(60);
    world.settle();
    assert_eq!((world.size("v1"), world.size("v2")), (0, 3));
}

#[test]
fn green_takes_over_by_itself_after_its_time() {
    let mut world = blue_green(json!({ "autoPromotionSeconds": 120 }));
    world.until(RolloutStage::Preview, 0);
    world.pass(118);
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Preview));
    world.pass(2);
    world.step();
    assert_eq!((world.stage(), world.weights()[1].1), (Some(RolloutStage::Confirming), 1000));
}

#[test]
fn without_a_wait_preview_costs_no_write() {
    let mut world = blue_green(json!({}));
    world.step();
    world.pods_follow();
    world.step();
    assert_eq!((world.stage(), world.weights()[1].1), (Some(RolloutStage::Confirming), 1000));
}

#[test]
fn switches_below_all_are_judged() {
    let mut world = blue_green(json!({ "switchSteps": [10, 50] }));
    world.until(RolloutStage::Analyzing, 1);
    assert_eq!((world.weights()[1].1, world.size("v2")), (100, 3));
    world.tick(60);
    assert_eq!(world.stage(), Some(RolloutStage::Analyzing));
    world.until(RolloutStage::Analyzing, 2);
    world.bad();
    world.step();
    assert_eq!(world.weights(), [("v1".to_owned(), 1000)]);
    assert_eq!(world.status().traffic.unwrap().preview_revision, None);
}

#[test]
fn an_abort_during_probation_sends_everything_back() {
    let mut world = blue_green(json!({}));
    world.until(RolloutStage::Probation, 1);
    world.command("abort", "1");
    world.step();
    assert_eq!(world.weights(), [("v1".to_owned(), 1000)]);
    assert_eq!((world.size("v1"), world.size("v2")), (3, 3));
}

#[test]
fn a_change_of_strategy_in_the_middle_is_survived() {
    for stage in [
        RolloutStage::Scaling,
        RolloutStage::Preview,
        RolloutStage::Analyzing,
        RolloutStage::Probation,
    ] {
        let mut world = blue_green(json!({ "autoPromotionSeconds": 10, "switchSteps": [10] }));
        let step = match stage {
            RolloutStage::Analyzing => 1,
            RolloutStage::Probation => 2,
            _ => 0,
        };
        world.until(stage, step);
        world.edit(json!({ "strategy": { "type": "Canary", "blueGreen": null } }));
        world.finish();
        assert_eq!(world.stable(), "v2");
        world.settle();
        assert!(
            world.observed.child(ManagedKind::Service, "digits-preview").is_none(),
            "{stage:?}"
        );
    }
}
