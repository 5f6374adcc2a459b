//! Changes by other clients to the objects of a model.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::json;
use slipway_objects::{GATEWAY, ManagedKind, ObjectTarget};
use slipway_sim::SimulatedWorld;

/// A model that has come up.
fn serving() -> SimulatedWorld {
    let object = json!({
        "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": { "name": "digits", "namespace": "ml", "uid": "owner", "generation": 1 },
        "spec": { "model": { "uri": "http://store/v1", "version": "v1" }, "replicas": 3 }
    });
    let mut world = SimulatedWorld::new(serde_json::from_value(object).unwrap(), 1);
    pass(&mut world, 60);
    assert_eq!(stalled(&world), "");
    world
}

fn pass(world: &mut SimulatedWorld, seconds: i64) {
    for _ in 0..seconds {
        world.tick();
    }
}

fn stalled(world: &SimulatedWorld) -> String {
    let conditions = world.status().conditions;
    conditions
        .iter()
        .find(|it| it.type_ == "Stalled")
        .map(|it| it.reason.clone())
        .unwrap_or_default()
}

#[test]
fn what_somebody_changes_or_removes_is_put_back_within_ten_seconds() {
    for fault in [
        "alter Deployment",
        "alter Service",
        "alter ReplicaSet",
        "alter RoleBinding",
        "alter NetworkPolicy",
        "lose NetworkPolicy",
        "lose PodDisruptionBudget",
    ] {
        let mut world = serving();
        let before = world.cost().1;
        world.inject_fault(fault).unwrap();
        assert!(
            fault == "alter ReplicaSet" || fault.starts_with("lose") || world.altered_count() == 1,
            "{fault}"
        );
        pass(&mut world, 10);
        assert_eq!(world.altered_count(), 0, "{fault}");
        let told = world
            .transcript
            .iter()
            .filter(|line| line.contains("event Warning ChildRestored"))
            .count();
        assert_eq!((world.cost().1 - before, told), (1, 1), "{fault}: {:#?}", world.transcript);
        assert!(world.violations.is_empty(), "{:#?}", world.violations);
    }
}

#[test]
fn somebody_who_changes_an_object_for_ever_costs_one_write_a_minute() {
    let mut world = serving();
    let gateway = ObjectTarget::new(ManagedKind::Deployment, GATEWAY);
    let before = world.apply_times(&gateway).len();
    world.inject_fault("contest Deployment").unwrap();
    pass(&mut world, 600);
    let writes = world.apply_times(&gateway).len() - before;
    assert!((10..=11).contains(&writes), "{writes} writes in ten minutes");
    assert_eq!(stalled(&world), "WriteReverted");
    let statuses = world.transcript.iter().filter(|line| line.ends_with(": status")).count();
    assert!(statuses < 20, "{statuses} writes of the status");
    world.end_faults();
    pass(&mut world, 200);
    assert_eq!((world.altered_count(), stalled(&world).as_str()), (0, ""));
    assert!(world.violations.is_empty(), "{:#?}", world.violations);
}

#[test]
fn a_model_that_is_made_again_over_its_orphans_goes_on() {
    let mut world = serving();
    let revision = world.status().stable.unwrap().revision;
    let before = world.transcript.len();
    world.inject_fault("orphan").unwrap();
    for _ in 0..30 {
        world.tick();
        let serves = world
            .status()
            .traffic
            .is_none_or(|it| it.backends.len() == 1 && it.backends[0].revision == revision);
        assert!(serves, "{:#?}", world.status().traffic);
    }
    let status = world.status();
    assert_eq!(status.stable.map(|it| it.revision), Some(revision));
    assert!(status.rollout.is_none() && status.history.is_empty());
    assert_eq!(stalled(&world), "");
    let since = &world.transcript[before..];
    let adopted = since.iter().filter(|line| line.contains("adopt ReplicaSet")).count();
    let scaled = since.iter().filter(|line| line.contains("scale ")).count();
    assert_eq!((adopted, scaled), (1, 0), "{:#?}", world.transcript);
    assert!(world.violations.is_empty(), "{:#?}", world.violations);
}
