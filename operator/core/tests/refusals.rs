//! Writes that are rejected or impossible, and how the status reports them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::World;
use serde_json::json;
use slipway_core::action::PlanAction;
use slipway_core::refusal::{RefusalCause, RefusalReport, WriteTarget};
use slipway_objects::desired::DesiredObject;
use slipway_objects::{ManagedKind, ObjectTarget};

const REFUSAL: &str = "apply PodDisruptionBudget digits: an object of this name exists and is not managed by this ModelDeployment";

fn refuse(world: &mut World) {
    let target =
        WriteTarget { verb: "apply", kind: "PodDisruptionBudget", name: "digits".to_owned() };
    let report = RefusalReport { cause: RefusalCause::Fault, message: REFUSAL.to_owned() };
    world.observed.refusals = Some(BTreeMap::from([(target, report)]));
}

/// Regression: a budget of the same name with another owner kept the model from growing
/// permanently.
#[test]
fn what_grows_comes_before_all_that_may_be_refused() {
    let mut world = World::serving(json!({}));
    world.observed.children.remove(&ObjectTarget::new(ManagedKind::PodDisruptionBudget, "digits"));
    refuse(&mut world);
    world.edit(json!({ "replicas": 9 }));
    let plan = world.plan();
    assert!(
        matches!(&plan.actions[0], PlanAction::Scale { replicas: 9, .. }),
        "{:#?}",
        plan.actions
    );
    let budget = |it: &PlanAction| matches!(it, PlanAction::Apply(desired) if matches!(**desired, DesiredObject::PodDisruptionBudget(_)));
    assert!(plan.actions[1..].iter().any(budget), "it is tried again");
}

#[test]
fn what_is_refused_is_told_for_as_long_as_it_is() {
    let mut world = World::serving(json!({}));
    refuse(&mut world);
    let plan = world.step();
    assert!(plan.status_first, "a person is told at once");
    assert_eq!(world.says("Stalled"), "True WriteRefused");
    assert_eq!(
        (world.status().state.as_str(), world.status().message.as_str()),
        ("WriteRefused", REFUSAL)
    );
    assert_eq!(world.says("Ready"), "True Stable", "traffic flows");
    world.writes.clear();
    for _ in 0..60 {
        world.tick(1);
    }
    assert!(world.writes.is_empty(), "Stalled does not flap: {:#?}", world.writes);
    // A newly started operator has not tried any write yet.
    world.observed.refusals = None;
    world.step();
    assert!(world.writes.is_empty(), "{:#?}", world.writes);
    world.observed.refusals = Some(BTreeMap::new());
    world.step();
    assert_eq!(world.says("Stalled"), "absent");
}

/// Regression: under a quota the status said "1 of 4 pods are ready" without the cause.
#[test]
fn the_reason_that_kubernetes_gives_is_told() {
    let quota = "pods \"digits-x\" is forbidden: exceeded quota: few, requested: pods=1, used: pods=4, limited: pods=4";
    let mut world = World::serving(json!({}));
    let set = world.set_mut("v1");
    (set.ready, set.available, set.current, set.failure) = (1, 1, 1, quota.to_owned());
    world.step();
    let message = world.condition("Reconciling").message;
    assert!(message.starts_with("1 of 3 pods") && message.contains("exceeded quota"), "{message}");
    // The same for the candidate's pods.
    let mut world = World::serving(json!({}));
    world.version("v2");
    world.step();
    world.set_mut("v2").failure = quota.to_owned();
    world.step();
    let message = world.condition("Reconciling").message;
    assert!(message.contains("exceeded quota"), "{message}");
    // And for the gateway's.
    let mut world = World::serving(json!({}));
    world.observed.gateway.pods.clear();
    world.observed.gateway.objects.get_mut(&ManagedKind::Deployment).unwrap().failure =
        "no account".to_owned();
    world.step();
    assert!(world.condition("Ready").message.contains("no account"));
}

/// Regression: a ModelDeployment with the name of the gateway made every model of its namespace
/// unready.
#[test]
fn a_model_may_not_be_called_like_what_is_ours() {
    for name in ["slipway-gateway", "digits-worker", "digits-preview"] {
        let mut world = World::new(json!({}));
        world.observed.object.metadata.name = Some(name.to_owned());
        let plan = world.plan();
        assert!(plan.actions.is_empty(), "{:#?}", plan.actions);
    }
}
