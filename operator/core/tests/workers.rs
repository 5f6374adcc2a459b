//! The workers of jobs follow the stable revision.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::{Value, json};
use slipway_objects::ManagedKind;

fn spec() -> Value {
    json!({ "replicas": 2, "server": { "queue": { "redis": { "url": "redis://r:6379" } } }, "strategy": { "type": "Canary" } })
}

fn workers(world: &World) -> Vec<&String> {
    world.writes.iter().filter(|write| write.contains("worker")).collect()
}

fn revision(world: &World) -> String {
    world.observed.object.status.as_ref().unwrap().stable.as_ref().unwrap().revision.clone()
}

/// Whether there is a Deployment of workers, and an autoscaler of it.
fn children(world: &World) -> (bool, bool) {
    let is_there = |kind| world.observed.child(kind, "digits-worker").is_some();
    (is_there(ManagedKind::Deployment), is_there(ManagedKind::HorizontalPodAutoscaler))
}

#[test]
fn they_come_when_there_is_a_stable_revision_and_go_with_the_queue() {
    let mut world = World::new(spec());
    for _ in 0..6 {
        world.tick(1);
    }
    assert_eq!(workers(&world), [&format!("apply worker of {}", revision(&world))]);
    assert_eq!(children(&world), (true, false));
    assert!(world.plan().actions.is_empty(), "a world at rest costs nothing");
    let of = revision(&world);

    world.edit(json!({ "queue": { "worker": { "autoscaling": { "maxReplicas": 5 } } } }));
    world.tick(1);
    assert_eq!(children(&world), (true, true));
    assert_eq!(revision(&world), of, "no rollout");
    world.edit(json!({ "queue": { "worker": { "autoscaling": null } } }));
    world.tick(1);
    assert_eq!(children(&world), (true, false));

    world.edit(json!({ "queue": null, "server": { "queue": null } }));
    world.tick(1);
    assert!(
        children(&world).0,
        "what is queued is worked off until the pods that take jobs are gone"
    );
    world.finish();
    world.settle();
    assert!(!children(&world).0, "{:?}", world.writes);
}

#[test]
fn a_rollout_leaves_them_alone_until_it_is_promoted() {
    let mut world = World::serving(spec());
    let old = revision(&world);
    world.version("v2");
    for _ in 0..3 {
        world.tick(1);
        assert_eq!(workers(&world), Vec::<&String>::new(), "the candidate has no workers");
    }
    world.finish();
    world.settle();
    assert_eq!(world.stable(), "v2");
    let new = revision(&world);
    assert_ne!(old, new);
    assert_eq!(workers(&world), [&format!("apply worker of {new}")]);
}
