//! Bugs that the simulator and the property tests found, each with the smallest world that
//! reproduces it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::World;
use serde_json::json;
use slipway_core::action::PlanAction;
use slipway_core::fields::ManagedFields;
use slipway_core::marks::RevisionMarks;
use slipway_core::observed::{ModelDigest, ReplicaSetView};
use slipway_crds::v1alpha1::{RevisionRole, RolloutStage, TrafficBackend};

fn canary() -> World {
    let mut world = World::serving(
        json!({ "strategy": { "canary": { "steps": [{ "setWeight": 5 }, { "setWeight": 100 }] } } }),
    );
    world.version("v2");
    world
}

/// Simulator, seed 88: the pods of the next step were requested, the operator crashed before the
/// step was stored, and the next plan removed them again while a lagging view still showed them.
#[test]
fn decisions_are_stored_before_their_consequences() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.good();
    let plan = world.plan();
    assert!(plan.actions.iter().any(|it| matches!(it, PlanAction::Scale { replicas: 3, .. })));
    assert!(plan.status_first);
}

/// Simulator, seed 751: an old revision returned in the second in which its pods were scaled to 0,
/// and the plan counted those pods of a lagging view as capacity.
#[test]
fn pods_that_nobody_asked_for_are_no_capacity() {
    let mut world = canary();
    world.finish();
    world.settle();
    world.version("v1");
    world.step();
    assert_eq!(
        (world.stage(), world.size("v1")),
        (Some(RolloutStage::Scaling), 1),
        "its three pods may be about to go"
    );
    assert_eq!(world.weights().len(), 1);
    world.pods_follow();
    world.step();
    assert_eq!(world.stage(), Some(RolloutStage::Confirming));
}

/// Simulator: a status that had to be written first was delayed because only counts differed.
#[test]
fn what_is_taken_away_does_not_wait() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.command("abort", "1");
    world.step();
    world.gateways_follow();
    let plan = world.plan();
    assert!(plan.actions.iter().any(|it| matches!(it, PlanAction::Scale { replicas: 0, .. })));
    assert!(plan.status_first && !plan.status_may_wait);
}

/// Properties: a full promotion requested before `spec.paused` jumped to the last step in spite of
/// it.
#[test]
fn full_promotion_is_held_too() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.command("promote-full", "1");
    world.edit(
        json!({ "strategy": { "canary": { "steps": [{ "setWeight": 5 }, { "pause": {} }, { "setWeight": 100 }] } } }),
    );
    world.step();
    world.observed.object.status.as_mut().unwrap().rollout.as_mut().unwrap().step_index = 0;
    world.edit(json!({ "paused": true }));
    world.step();
    assert_eq!(world.status().rollout.unwrap().step_index, 0);
}

/// Properties: impossible weights stayed if the spec was invalid before a revision served.
#[test]
fn absurd_weights_do_not_stay() {
    let mut world = World::new(
        json!({ "strategy": { "canary": { "steps": [{ "setWeight": 50 }, { "setWeight": 5 }] } } }),
    );
    world.step();
    let traffic = world.observed.object.status.as_mut().unwrap().traffic.get_or_insert_default();
    traffic.backends = vec![TrafficBackend {
        revision: "ffffffffff".into(),
        role: RevisionRole::Candidate,
        weight_permille: 70,
    }];
    world.step();
    assert_eq!(world.status().traffic, None, "a gateway without weights keeps the last ones");
}

/// Simulator, seed 5480: the status was deleted in the second in which the only pod of stable had
/// been evicted. Nothing was available, so the spec's revision counted as the first one, and the
/// pods of stable were removed.
#[test]
fn a_lost_status_while_stable_is_down_keeps_stable() {
    let mut world = canary();
    world.until(RolloutStage::Analyzing, 0);
    world.observed.object.status = None;
    for set in &mut world.observed.replica_sets {
        (set.ready, set.available) = (0, 0);
    }
    world.step();
    assert_eq!((world.stable().as_str(), world.weights()), ("v1", vec![("v1".to_owned(), 1000)]));
    assert_eq!(world.size("v1"), 3);
}

/// Found by chance: a stored negative share of a paused candidate becomes zero, which is not an
/// increase.
#[test]
fn a_share_below_nothing_is_none() {
    let time = "2026-01-01T00:00:00Z";
    let steps = json!([{ "setWeight": 5 }, { "setWeight": 1 }]);
    let canary = json!({ "type": "Canary", "canary": { "steps": steps } });
    let mut world = World::new(
        json!({ "paused": true, "replicas": 0, "strategy": canary, "analysis": { "mode": "Disabled" } }),
    );
    let revision = slipway_objects::revision::revision_of_spec(&world.observed.object.spec);
    world.observed.replica_sets.push(ReplicaSetView {
        name: format!("digits-{revision}"),
        uid: "set-0".into(),
        revision,
        version: "v1".into(),
        digest: ModelDigest::Unreported,
        failure: String::new(),
        marks: RevisionMarks::default(),
        created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        desired: 0,
        current: 1,
        ready: 1,
        available: 1,
        is_observed: false,
        owned: true,
        orphaned: false,
        applied_hash: String::new(),
        images: BTreeMap::new(),
        managed_fields: ManagedFields::default(),
        deleting: false,
    });
    world.observed.object.status = serde_json::from_value(json!({
        "traffic": { "generation": 0, "confirmedGeneration": 0,
                     "backends": [{ "revision": "ffffffffff", "role": "Candidate", "weight": "-1%" }] },
        "rollout": { "revision": "ffffffffff", "stage": "Scaling", "stepIndex": 0, "step": "", "startTime": time,
                     "stageStartTime": time, "promoteFull": false },
    }))
    .unwrap();
    for _ in 0..3 {
        world.step();
        assert!(world.weights().iter().all(|(_, weight)| *weight >= 0), "{:?}", world.weights());
    }
}
