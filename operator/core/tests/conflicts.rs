//! Hosts and model names that another ModelDeployment holds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::json;
use slipway_core::conflicts::{ClaimConflict, NameClaim};

fn conflict(claim: NameClaim) -> ClaimConflict {
    ClaimConflict { claim, holder: "older".into() }
}

#[test]
fn a_conflict_is_told_with_field_holder_and_remedy_and_stops_nothing() {
    let mut world = World::serving(json!({}));
    assert_eq!(world.says("Conflicted"), "absent");
    world.observed.conflicts = vec![conflict(NameClaim::Host("m.example.org".into()))];
    let plan = world.step();
    assert!(plan.status_first, "a person is told at once");
    assert_eq!(world.says("Conflicted"), "True HostnameConflict");
    let message = world.condition("Conflicted").message;
    for word in [
        "Service digits serves",
        "spec.traffic.hosts: 'm.example.org'",
        "ModelDeployment older",
        "remove it",
    ] {
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(world.says("Ready"), "True Stable");

    world.version("v2");
    world.finish();
    assert_eq!(world.stable(), "v2", "rollouts go on");
    world.observed.conflicts.clear();
    world.step();
    assert_eq!(world.says("Conflicted"), "absent");
}

#[test]
fn a_model_name_alone_has_a_reason_of_its_own() {
    let mut world = World::serving(json!({}));
    world.observed.conflicts = vec![conflict(NameClaim::ModelName("m".into()))];
    world.step();
    assert_eq!(world.says("Conflicted"), "True ModelNameConflict");
    let message = world.condition("Conflicted").message;
    assert!(
        message.contains("spec.model.name: 'm'") && message.contains("declare a host"),
        "{message}"
    );
    world.observed.conflicts.push(conflict(NameClaim::Host("m.example.org".into())));
    world.step();
    assert_eq!(
        world.says("Conflicted"),
        "True HostnameConflict",
        "of both, the one that was asked for by name"
    );
}

/// The schema cannot check the namespace; that of the world is `ml`.
#[test]
fn a_host_of_the_form_of_a_services_address_is_told() {
    let world = World::serving(json!({ "traffic": { "hosts": ["other.ml", "m.example.org"] } }));
    assert_eq!(world.says("Conflicted"), "True HostnameConflict");
    let message = world.condition("Conflicted").message;
    assert!(message.contains("'other.ml'") && !message.contains("m.example.org"), "{message}");
}

#[test]
fn a_change_of_hosts_makes_no_revision() {
    let mut world = World::serving(json!({}));
    world.edit(json!({ "traffic": { "hosts": ["m.example.org"] } }));
    world.settle();
    assert!(world.status().rollout.is_none());
    assert_eq!(world.writes, ["status"], "only the observed generation moved");
}

#[test]
fn however_much_is_held_by_others_it_fits_into_status() {
    let mut world = World::serving(json!({}));
    let hosts =
        (0..16).map(|n| conflict(NameClaim::Host(format!("{n}.{}.example", "x".repeat(63)))));
    world.observed.conflicts = hosts.collect();
    world.step();
    assert_eq!(world.says("Conflicted"), "True HostnameConflict");
}
