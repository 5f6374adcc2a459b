//! One revision is one model: if the spec names no digest, the first pod determines it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{DIGEST, FOUND, World};
use serde_json::json;
use slipway_core::action::PlanAction;
use slipway_core::observed::{FetchedModel, ModelDigest};
use slipway_crds::v1alpha1::RolloutStage;

fn unnamed() -> World {
    World::new(json!({ "model": { "uri": "s3://models/latest", "digest": null } }))
}

fn told(world: &mut World, version: &str, digest: &str) {
    let revision = world.set(version).revision.clone();
    world.observed.fetched_models.push(FetchedModel {
        revision,
        pod: format!("{version}-x"),
        digest: digest.into(),
    });
}

#[test]
fn the_first_pod_starts_alone_and_its_model_is_that_of_all() {
    let mut world = unnamed();
    world.step();
    assert_eq!((world.size("v1"), &world.set("v1").digest), (1, &ModelDigest::Pending));
    for _ in 0..3 {
        world.step();
    }
    assert_eq!(world.size("v1"), 1, "nobody has told");
    assert_eq!(world.status().stable.and_then(|it| it.digest), None);
    told(&mut world, "v1", FOUND);
    let plan = world.step();
    assert!(
        plan.actions
            .iter()
            .any(|it| matches!(it, PlanAction::Pin { digest, .. } if digest == FOUND)),
        "{plan:#?}"
    );
    assert_eq!(world.size("v1"), 1, "first it is pinned");
    world.step();
    assert_eq!(world.size("v1"), 3);
    for _ in 0..6 {
        world.tick(1);
    }
    assert_eq!(world.status().stable.unwrap().digest.as_deref(), Some(FOUND));
    // A different digest that a later pod might report changes nothing.
    told(&mut world, "v1", DIGEST);
    assert!(world.plan().actions.is_empty());
}

#[test]
fn a_candidate_gets_no_traffic_before_its_model_is_known() {
    let mut world = World::serving(json!({ "replicas": 4 }));
    world.edit(json!({ "model": { "uri": "s3://models/latest", "version": "v2", "digest": null },
                       "strategy": { "type": "Canary", "canary": { "steps": [{ "setWeight": 50 }] } } }));
    world.step();
    assert_eq!(world.size("v2"), 1);
    let set = world.set_mut("v2");
    (set.current, set.ready, set.available, set.is_observed) = (1, 1, 1, true);
    for _ in 0..3 {
        world.step();
    }
    assert_eq!((world.stage(), world.size("v2")), (Some(RolloutStage::Scaling), 1));
    told(&mut world, "v2", FOUND);
    world.step();
    world.step();
    assert_eq!(world.size("v2"), 2);
    world.finish();
    assert_eq!(
        (world.stable().as_str(), world.status().stable.unwrap().digest.as_deref()),
        ("v2", Some(FOUND))
    );
}

#[test]
fn a_digest_in_the_spec_needs_nobody_to_tell() {
    let mut world = World::new(json!({ "replicas": 5 }));
    let plan = world.step();
    assert_eq!((world.size("v1"), world.set("v1").digest.known_digest()), (5, Some(DIGEST)));
    assert!(!plan.actions.iter().any(|it| matches!(it, PlanAction::Pin { .. })));
    world.tick(1);
    told(&mut world, "v1", FOUND);
    assert!(
        !world.plan().actions.iter().any(|it| matches!(it, PlanAction::Pin { .. })),
        "the user's word counts"
    );
}

/// A replacement of the pod that reported, created just before the digest was written, may have
/// found another model. That model is the one that serves.
#[test]
fn what_serves_decides_while_it_is_alone() {
    let mut world = unnamed();
    world.step();
    told(&mut world, "v1", FOUND);
    world.step();
    world.observed.fetched_models.clear();
    told(&mut world, "v1", DIGEST);
    world.step();
    assert_eq!((world.size("v1"), world.set("v1").digest.known_digest()), (1, Some(DIGEST)));
    world.step();
    assert_eq!(world.size("v1"), 3);
}

#[test]
fn an_image_of_ones_own_that_holds_the_model_tells_nothing() {
    let mut world = World::new(
        json!({ "model": { "uri": "file:///models/m.onnx", "digest": null },
                                       "template": {"spec": {"containers": [{"name": "server", "image": "own:1"}]}} }),
    );
    world.step();
    assert_eq!((world.size("v1"), &world.set("v1").digest), (3, &ModelDigest::Unreported));
}

#[test]
fn workers_come_when_the_model_is_known() {
    let mut world = unnamed();
    world.edit(json!({ "server": { "queue": { "redis": { "url": "redis://r:6379" } } } }));
    let worker = |world: &World| world.writes.iter().filter(|it| it.contains("worker")).count();
    world.step();
    world.pods_follow();
    world.observed.fetched_models.clear();
    world.gateways_follow();
    world.step();
    world.step();
    assert_eq!((world.stable().as_str(), worker(&world)), ("v1", 0));
    told(&mut world, "v1", FOUND);
    world.step();
    world.step();
    assert_eq!(worker(&world), 1);
}
