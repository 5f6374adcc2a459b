//! Network access to the pods of a model, and until when it is allowed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{UID, World};
use serde_json::{Value, json};
use slipway_core::action::PlanAction;
use slipway_objects::ManagedKind;
use slipway_objects::settings::NetworkPolicies;

const ANOTHER: &str = "4d2c1a9e-0000-4000-8000-000000000002";

/// Names of the policies of the ModelDeployment.
fn names(world: &World) -> Vec<&str> {
    world.observed.children_of(ManagedKind::NetworkPolicy).map(|(name, _)| name).collect()
}

/// Names of the objects that a plan deletes.
fn deleted(world: &World) -> Vec<String> {
    let actions = world.plan().actions;
    let deleted = actions.iter().filter_map(|action| match action {
        PlanAction::Delete { kind: ManagedKind::NetworkPolicy, name, .. } => Some(name.clone()),
        _ => None,
    });
    deleted.collect()
}

/// A template with a sidecar that listens.
fn sidecar(name: &str, port: u16) -> Value {
    json!({ "spec": { "containers": [{ "name": name, "image": "proxy:1", "ports": [{ "containerPort": port }] }] } })
}

#[test]
fn policies_that_are_switched_off_are_taken_away() {
    let mut world = World::serving(
        json!({ "server": { "queue": { "redis": { "url": "redis://redis:6379" } } } }),
    );
    assert_eq!(names(&world), ["digits", "digits-worker"]);
    assert!(world.observed.gateway.objects.contains_key(&ManagedKind::NetworkPolicy));
    world.observed.settings.network_policies = None;
    assert_eq!(deleted(&world), ["slipway-gateway", "digits", "digits-worker"]);
    world.settle();
    assert!(
        names(&world).is_empty()
            && !world.observed.gateway.objects.contains_key(&ManagedKind::NetworkPolicy)
    );
    assert!(world.plan().actions.is_empty());
    world.observed.settings.network_policies = Some(NetworkPolicies::default());
    world.settle();
    assert_eq!(names(&world), ["digits", "digits-worker"]);
}

/// The gateway's policy has no controller: a ModelDeployment that does not own it must not delete
/// it.
#[test]
fn the_policy_of_gateways_is_taken_away_by_its_owners() {
    let mut world = World::serving(json!({}));
    world.observed.settings.network_policies = None;
    let owners = |world: &mut World, owners: &[&str]| {
        let view = world.observed.gateway.objects.get_mut(&ManagedKind::NetworkPolicy).unwrap();
        view.owners = owners.iter().map(|owner| (*owner).to_owned()).collect();
    };
    owners(&mut world, &[ANOTHER]);
    assert_eq!(deleted(&world), ["digits"]);
    for of in [&[][..], &[ANOTHER, UID]] {
        owners(&mut world, of);
        assert_eq!(deleted(&world), ["slipway-gateway", "digits"]);
    }
}

#[test]
fn other_peers_are_applied_at_once() {
    let mut world = World::serving(json!({}));
    let everybody = serde_json::from_value(json!([{ "namespaceSelector": {} }])).unwrap();
    let policies = NetworkPolicies { metrics_from: everybody, ..NetworkPolicies::default() };
    world.observed.settings.network_policies = Some(policies);
    world.writes.clear();
    world.step();
    assert_eq!(
        world.writes.len(),
        2,
        "that of the gateways and that of the model: {:?}",
        world.writes
    );
    assert!(world.events.is_empty(), "nobody changed anything: {:?}", world.events);
}

/// Both revisions have pods during a rollout, and each keeps the ports that its own template
/// declares.
#[test]
fn ports_of_a_template_are_open_for_as_long_as_its_revision_is_there() {
    let mut world =
        World::serving(json!({ "template": sidecar("proxy", 8443), "revisionHistoryLimit": 0 }));
    let before = world.set("v1").name.clone();
    assert_eq!(names(&world), ["digits", before.as_str()]);
    world.edit(json!({ "template": sidecar("other", 8444) }));
    world.version("v2");
    world.until(slipway_crds::v1alpha1::RolloutStage::Analyzing, 0);
    let after = world.set("v2").name.clone();
    let mut both = vec!["digits", before.as_str(), after.as_str()];
    both.sort_unstable();
    assert_eq!(names(&world), both);
    world.finish();
    for _ in 0..600 {
        world.tick(1);
    }
    assert!(
        world.observed.replica_sets.iter().all(|set| set.name != before),
        "the old revision is gone"
    );
    assert_eq!(names(&world), ["digits", after.as_str()]);
}
