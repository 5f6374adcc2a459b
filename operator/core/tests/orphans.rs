//! The operator's objects without a controller, and copies that only look like them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{UID, World};
use serde_json::json;
use slipway_core::action::PlanAction;
use slipway_core::fields::ManagedFields;
use slipway_core::observed::ObjectView;
use slipway_objects::{ManagedKind, ObjectTarget};

const ANOTHER: &str = "4d2c1a9e-0000-4000-8000-000000000002";

/// Deletes the ModelDeployment without its children, and creates it again.
fn orphan(world: &mut World) {
    let observed = &mut world.observed;
    observed.object.metadata.uid = Some(ANOTHER.to_owned());
    observed.object.status = None;
    let gateway = &mut observed.gateway;
    for view in observed.children.values_mut().chain(gateway.objects.values_mut()) {
        view.owners.clear();
        view.controller = None;
    }
    for set in &mut observed.replica_sets {
        set.orphaned = true;
    }
    for pod in &mut gateway.pods {
        pod.report = None;
    }
    observed.disturbances.clear();
    world.writes.clear();
    world.events.clear();
}

/// Regression from production: ReplicaSets without a controller were ignored, no revision was
/// stable, and following the message caused an outage.
#[test]
fn orphans_are_taken_back_and_serve_on() {
    let mut world = World::serving(json!({}));
    world.version("v2");
    world.finish();
    let (stable, sizes) = (world.stable(), world.sizes());
    orphan(&mut world);
    let first = world.step();
    assert_eq!(
        first.status.stable.as_ref().map(|it| it.version.as_str()),
        Some("v2"),
        "at no moment is nothing stable"
    );
    assert_eq!(world.weights(), [("v2".to_owned(), 1000)]);
    assert!(
        first
            .actions
            .iter()
            .all(|it| matches!(it, PlanAction::Apply(_) | PlanAction::Adopt { .. })),
        "{:#?}",
        first.actions
    );
    assert!(world.observed.replica_sets.iter().all(|set| !set.orphaned));
    for _ in 0..5 {
        world.tick(1);
    }
    assert_eq!(
        (world.stable(), world.sizes()),
        (stable, sizes),
        "nothing was rolled out, nothing was scaled"
    );
    assert!(world.status().rollout.is_none() && world.status().history.is_empty());
    let controllers: Vec<_> = world
        .observed
        .children_of(ManagedKind::Service)
        .map(|(_, view)| view.controller.as_deref())
        .collect();
    assert!(controllers.iter().all(|it| *it == Some(ANOTHER)), "{:#?}", world.observed.children);
    assert!(world.plan().actions.is_empty());
}

#[test]
fn orphans_are_asked_what_was_stable_and_what_was_taken_back() {
    // The spec names v2, which was rolled back.
    let mut world = World::serving(json!({}));
    world.version("v2");
    world.until(slipway_crds::v1alpha1::RolloutStage::Analyzing, 0);
    world.command("abort", "1");
    world.settle();
    orphan(&mut world);
    world.tick(1);
    assert_eq!(
        (world.stable().as_str(), world.says("RolledBack").as_str()),
        ("v1", "True UserAborted")
    );
    assert_eq!(world.weights(), [("v1".to_owned(), 1000)]);
    // It returns with another version: that is a rollout over the serving revision, from its first
    // step.
    let mut world = World::serving(json!({}));
    orphan(&mut world);
    world.version("v3");
    world.tick(1);
    assert_eq!((world.stable().as_str(), world.weights()), ("v1", vec![("v1".to_owned(), 1000)]));
    assert_eq!(world.size("v1"), 3);
}

/// Objects with the operator's labels and another controller, or none, are copies made by another
/// client.
#[test]
fn a_copy_of_our_manifest_is_never_deleted() {
    let mut world = World::serving(json!({}));
    let copy = |controller: Option<&str>| {
        let controller = controller.map(str::to_owned);
        ObjectView {
            uid: "copy".to_owned(),
            applied_hash: "x".to_owned(),
            managed_fields: ManagedFields::default(),
            // An owner reference for garbage collection is not a controller.
            owners: vec![UID.to_owned()],
            controller,
            failure: String::new(),
            desired_replicas: None,
            rolled_out: false,
        }
    };
    let target = |kind, name| ObjectTarget::new(kind, name);
    let scaled = [
        target(ManagedKind::HorizontalPodAutoscaler, "digits"),
        target(ManagedKind::Deployment, "digits-worker"),
        target(ManagedKind::HorizontalPodAutoscaler, "digits-worker"),
    ];
    for controller in [None, Some(ANOTHER)] {
        let services = ["digits-preview", "digits-0123456789"];
        let services = services.map(|name| target(ManagedKind::Service, name));
        for target in services.into_iter().chain(scaled.clone()) {
            world.observed.children.insert(target, copy(controller));
        }
        assert!(world.plan().actions.is_empty(), "{:#?}", world.plan().actions);
    }
    let preview = target(ManagedKind::Service, "digits-preview");
    for target in scaled.into_iter().chain([preview]) {
        world.observed.children.insert(target, copy(Some(UID)));
    }
    let deleted =
        world.plan().actions.iter().filter(|it| matches!(it, PlanAction::Delete { .. })).count();
    assert_eq!(deleted, 4, "what is ours and not wanted any more goes");
}
