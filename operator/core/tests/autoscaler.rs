//! Replicas with an autoscaler.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::json;
use slipway_core::observed::ObjectView;
use slipway_objects::{ManagedKind, ObjectTarget};

/// Starts with six replicas set by hand, then adds an autoscaler and removes `replicas`, for which
/// the API server writes 1.
fn handed_over(min: i32, max: i32) -> World {
    let mut world = World::serving(json!({}));
    world.edit(json!({ "replicas": 6 }));
    world.settle();
    assert_eq!(world.size("v1"), 6);
    world.edit(json!({ "replicas": 1, "autoscaling": { "minReplicas": min, "maxReplicas": max } }));
    world
}

/// Regression: 6 pods, then 1 for five seconds, then 4.
#[test]
fn nothing_shrinks_before_the_autoscaler_has_spoken() {
    let mut world = handed_over(4, 10);
    for _ in 0..100 {
        world.tick(1);
        assert_eq!(world.size("v1"), 6);
    }
    world.scale_model(4);
    world.settle();
    assert_eq!(world.size("v1"), 4);
    world.scale_model(9);
    world.settle();
    assert_eq!(world.size("v1"), 9);
    // The same with the manifest that never had the field: no client owns the value.
    world.observed.object.metadata.managed_fields = None;
    world.edit(json!({ "replicas": 1 }));
    world.settle();
    assert_eq!(world.size("v1"), 9);
}

fn autoscaler(world: &mut World) -> &mut ObjectView {
    let target = ObjectTarget::new(ManagedKind::HorizontalPodAutoscaler, "digits");
    world.observed.children.get_mut(&target).unwrap()
}

/// An autoscaler does not write a number that is there already.
#[test]
fn the_autoscaler_may_want_what_is_written() {
    let mut world = handed_over(1, 10);
    world.settle();
    autoscaler(&mut world).desired_replicas = Some(6);
    world.settle();
    assert_eq!(world.size("v1"), 6);
    autoscaler(&mut world).desired_replicas = Some(1);
    world.settle();
    assert_eq!(world.size("v1"), 1);
}

#[test]
fn the_least_and_the_most_of_the_autoscaler_hold_before_it_speaks() {
    let mut world = handed_over(1, 4);
    world.settle();
    assert_eq!(world.size("v1"), 4);
    let mut world = World::new(json!({ "autoscaling": { "minReplicas": 3, "maxReplicas": 9 } }));
    world.settle();
    assert_eq!(world.size("v1"), 3, "a new model begins with them");
}

/// 0 disables the autoscaler; it always comes from a user.
#[test]
fn nothing_is_nothing() {
    let mut world = handed_over(4, 10);
    world.edit(json!({ "replicas": 0 }));
    world.settle();
    assert_eq!(world.size("v1"), 0);
}

/// The replicas that a HorizontalPodAutoscaler requests for an external metric of type
/// `AverageValue` (Kubernetes, podautoscaler/replica_calculator.go,
/// GetExternalPerPodMetricReplicas): within a tolerance of a tenth it uses `status.replicas` as the
/// desired number.
fn average_value(status_replicas: i32, total: f64, each: f64) -> i32 {
    let ratio = total / (each * f64::from(status_replicas));
    if (ratio - 1.0).abs() <= 0.1 { status_replicas } else { (total / each).ceil() as i32 }
}

/// If `status.replicas` contained the pods of both revisions, the sequence would be 10, 11, 13, 10
/// (argoproj/argo-rollouts#4847).
#[test]
fn an_autoscaler_does_not_chase_a_rollout() {
    let steps = json!([{ "setWeight": 10 }, { "setWeight": 50 }, { "setWeight": 100 }]);
    for strategy in [json!({ "canary": { "steps": steps } }), json!({ "type": "BlueGreen" })] {
        let mut world = World::serving(json!({ "replicas": 10, "strategy": strategy }));
        world.settle();
        world.version("v2");
        world.step();
        let mut seconds = 0;
        while world.status().rollout.is_some() {
            if world.stage() == Some(slipway_crds::v1alpha1::RolloutStage::Analyzing) {
                world.good();
            }
            if world.stage() == Some(slipway_crds::v1alpha1::RolloutStage::Preview) {
                world.command("promote", "1");
            }
            world.tick(1);
            let wish = average_value(world.status().replicas, 100.0, 10.0);
            assert_eq!(
                wish,
                10,
                "{strategy}: after {seconds} s, status.replicas is {}",
                world.status().replicas
            );
            world.scale_model(wish);
            seconds += 1;
            assert!(seconds < 400, "never ends");
        }
        assert_eq!(world.stable(), "v2");
    }
}

/// Absent replicas: the current number stays, at least one, and the value is written once, because
/// the scale subresource returns an error without one.
#[test]
fn replicas_that_are_left_out_stay_as_they_are() {
    let mut world = World::new(json!({ "replicas": null }));
    world.settle();
    assert_eq!(world.size("v1"), 1, "a new object has one");
    assert_eq!(world.observed.object.spec.replicas, Some(1));
    world.edit(json!({ "replicas": 5 }));
    world.settle();
    world.observed.object.metadata.managed_fields = None;
    world.edit(json!({ "replicas": null }));
    world.writes.clear();
    world.settle();
    assert_eq!((world.size("v1"), world.observed.object.spec.replicas), (5, Some(5)));
    let written: Vec<_> =
        world.writes.iter().filter(|write| write.starts_with("write replicas")).collect();
    assert_eq!(written, ["write replicas 5"]);
}

/// With an autoscaler at least `minReplicas`, also for a new object.
#[test]
fn an_autoscaler_begins_where_replicas_are_left_out() {
    let autoscaling = json!({ "minReplicas": 3, "maxReplicas": 8 });
    let mut world = World::new(json!({ "replicas": null, "autoscaling": autoscaling }));
    world.settle();
    assert_eq!((world.size("v1"), world.observed.object.spec.replicas), (3, Some(3)));
    world.scale_model(7);
    world.settle();
    world.observed.object.metadata.managed_fields = None;
    world.edit(json!({ "replicas": null }));
    world.settle();
    assert_eq!((world.size("v1"), world.observed.object.spec.replicas), (7, Some(7)));
}

/// During a rollout, and for an invalid spec, the value is not overwritten.
#[test]
fn nothing_is_written_of_a_spec_that_cannot_be_acted_on() {
    let mut world = World::serving(json!({}));
    world.edit(json!({ "replicas": null, "analysis": { "mode": "Custom", "gates": [] } }));
    world.settle();
    assert_eq!((world.size("v1"), world.observed.object.spec.replicas), (3, None));
}
