//! Changes by other clients to the operator's objects, and objects of other owners.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use common::{FOUND, UID, World};
use serde_json::{Value, json};
use slipway_core::action::PlanAction;
use slipway_core::fields::{self, ManagedFields};
use slipway_core::observed::{ModelDigest, UpdatePermission};
use slipway_objects::desired::DesiredObject;
use slipway_objects::{GATEWAY, ManagedKind, ObjectTarget};

/// Above a bound each additional owner would rewrite the gateway's objects in turn with all others.
#[test]
fn many_owners_are_none() {
    let mut world = World::serving(json!({}));
    let owners = |world: &World| -> Vec<_> {
        world.observed.gateway.objects.values().map(|view| view.owners.clone()).collect()
    };
    assert_eq!(owners(&world), [[UID]; 6]);
    world.observed.gateway.sharing_models = slipway_objects::MAX_OWNERS;
    assert!(world.plan().actions.is_empty());
    world.observed.gateway.sharing_models = slipway_objects::MAX_OWNERS + 1;
    assert_eq!(world.plan().actions.len(), 6);
    world.settle();
    assert!(owners(&world).iter().all(Vec::is_empty));
    // One more ModelDeployment does not change them.
    assert!(world.plan().actions.is_empty());
    world.pass(3600);
    world.observed.gateway.sharing_models = slipway_objects::MAX_OWNERS;
    world.settle();
    assert_eq!(owners(&world), [[UID]; 6]);
}

#[test]
fn a_gateway_waits_for_its_turn_to_be_updated() {
    let deployment = |world: &World| {
        world.plan().actions.iter().any(|action| {
            matches!(action, PlanAction::Apply(desired) if matches!(&**desired, DesiredObject::Deployment(it) if it.metadata.name.as_deref() == Some("slipway-gateway")))
        })
    };
    let mut world = World::serving(json!({}));
    world.observed.settings.gateway_image = "gateway:2".into();
    assert!(deployment(&world), "its turn");
    world.observed.gateway.update = UpdatePermission::Waiting;
    assert!(!deployment(&world));
    world.settle();
    assert_eq!(world.says("GatewayOutdated"), "absent");
    world.observed.gateway.update = UpdatePermission::Stopped("others do worse".into());
    assert!(!deployment(&world));
    world.settle();
    assert_eq!(world.says("GatewayOutdated"), "True UpdateStopped");
    assert_eq!(world.condition("GatewayOutdated").message, "others do worse");
    // No wait if no pod is ready, because nothing can get worse, or if there is no Deployment.
    let ready = world.observed.gateway.pods.clone();
    world.observed.gateway.pods.iter_mut().for_each(|pod| pod.ready = false);
    assert!(deployment(&world));
    world.observed.gateway.pods = ready;
    world.observed.gateway.objects.remove(&ManagedKind::Deployment);
    assert!(deployment(&world));
}

/// A world with every object that a spec can request for a model.
fn everything() -> World {
    World::serving(json!({
        "autoscaling": { "maxReplicas": 5 }, "strategy": { "type": "BlueGreen" },
        "server": { "queue": { "redis": { "url": "redis://redis:6379" } } },
        "queue": { "worker": { "autoscaling": { "maxReplicas": 4 } } }
    }))
}

/// Objects with the field ownership that the API server reports, by kind and name.
fn managed(world: &mut World) -> Vec<(String, &mut ManagedFields)> {
    let observed = &mut world.observed;
    let children = observed.children.iter_mut();
    let children = children.map(|(target, view)| (target.to_string(), &mut view.managed_fields));
    let gateway = observed.gateway.objects.iter_mut();
    let gateway =
        gateway.map(|(kind, view)| (format!("{kind} {GATEWAY}"), &mut view.managed_fields));
    let sets = observed
        .replica_sets
        .iter_mut()
        .map(|set| (format!("ReplicaSet {}", set.name), &mut set.managed_fields));
    children.chain(gateway).chain(sets).collect()
}

/// Removes a field from the operator's entry, as a change by another client does.
fn take(managed: &mut ManagedFields, pointer: &str, by: &str) {
    let mut fields = managed.fields.as_deref().unwrap().clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    fields.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().remove(key).unwrap();
    *managed = ManagedFields { fields: Some(Arc::new(fields)), changed_by: Some(by.to_owned()) };
}

fn change(world: &mut World, target: &str, pointer: &str) {
    let (_, managed) = managed(world).into_iter().find(|(it, _)| it == target).unwrap();
    take(managed, pointer, "kubectl-edit");
}

/// Regression: a gateway that a user scaled to zero, and a changed selector of the stable Service,
/// stayed so permanently.
#[test]
fn what_a_person_changes_is_put_back_and_told() {
    let targets: Vec<String> =
        managed(&mut everything()).into_iter().map(|(target, _)| target).collect();
    assert_eq!(targets.len(), 16, "{targets:?}");
    for target in targets {
        let mut world = everything();
        change(&mut world, &target, "/f:metadata/f:labels");
        world.step();
        assert_eq!(world.writes.len(), 1, "{target}: {:?}", world.writes);
        let event = format!(
            "ChildRestored: {target}: metadata.labels was changed by kubectl-edit; it is put back"
        );
        assert_eq!(world.events, [event]);
        world.step();
        assert_eq!(world.writes.len(), 1, "once");
    }
}

#[test]
fn what_a_person_removes_is_made_again_and_told() {
    let mut world = World::serving(json!({}));
    world.observed.children.remove(&ObjectTarget::new(ManagedKind::PodDisruptionBudget, "digits"));
    world
        .observed
        .disturbances
        .entry(ObjectTarget::new(ManagedKind::PodDisruptionBudget, "digits"))
        .or_default()
        .removed = true;
    world.step();
    assert!(world.observed.child(ManagedKind::PodDisruptionBudget, "digits").is_some());
    assert_eq!(
        world.events,
        ["ChildRestored: PodDisruptionBudget digits was removed; it is made again"]
    );
    // The first apply of an object publishes no event.
    let mut world = World::serving(json!({}));
    world.edit(json!({ "autoscaling": { "maxReplicas": 5 } }));
    world.step();
    assert!(
        world.observed.child(ManagedKind::HorizontalPodAutoscaler, "digits").is_some()
            && world.events.is_empty(),
        "{:?}",
        world.events
    );
}

/// Changes the same object again each time that it was restored, for ten minutes, and counts the
/// writes.
fn contest(world: &mut World, mut alter: impl FnMut(&mut World)) -> usize {
    let mut said = Vec::new();
    for _ in 0..600 {
        alter(world);
        world.step();
        assert_eq!(world.says("Ready"), "True Stable", "it serves");
        said.push((world.says("Stalled"), world.status().message));
        world.pass(1);
    }
    said.dedup();
    // The condition reports it from the second time on, and does not flap.
    let reasons: Vec<&str> = said.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["absent", "True WriteReverted"], "{said:#?}");
    assert!(
        said[1].1.contains("RoleBinding slipway-gateway is changed or removed by"),
        "{}",
        said[1].1
    );
    world.writes.iter().filter(|word| *word == "apply ").count()
}

#[test]
fn somebody_who_reverts_us_costs_one_write_a_minute_and_is_named() {
    let mut world = World::serving(json!({}));
    let target = "RoleBinding slipway-gateway";
    let writes = contest(&mut world, |world| {
        let whole = managed(world).into_iter().find(|(it, _)| it == target).unwrap().1;
        if whole.fields.as_ref().unwrap()["f:subjects"].is_object() {
            take(whole, "/f:subjects", "argocd-controller");
        }
    });
    assert!((9..=11).contains(&writes), "{writes} writes in ten minutes");
    assert!(
        world.condition("Stalled").message.contains("by argocd-controller"),
        "{}",
        world.condition("Stalled").message
    );
    // When the changes stop, the object is restored, and after a while the condition disappears.
    world.writes.clear();
    for _ in 0..300 {
        world.tick(1);
    }
    assert_eq!(world.says("Stalled"), "absent");
    assert_eq!(
        world.writes.iter().filter(|word| *word == "apply ").count(),
        1,
        "{:?}",
        world.writes
    );
}

#[test]
fn somebody_who_removes_or_strips_what_we_make_costs_no_more() {
    // The annotation with the hash itself, then a whole object.
    let mut world = World::serving(json!({}));
    let stripped = contest(&mut world, |world| {
        let view = world.observed.gateway.objects.get_mut(&ManagedKind::RoleBinding).unwrap();
        view.applied_hash.clear();
        view.managed_fields =
            ManagedFields { fields: Some(Arc::new(json!({ "f:subjects": {} }))), changed_by: None };
    });
    assert!((9..=11).contains(&stripped), "{stripped} writes in ten minutes");
    let mut world = World::serving(json!({}));
    let removed = contest(&mut world, |world| {
        world.observed.gateway.objects.remove(&ManagedKind::RoleBinding);
        world
            .observed
            .disturbances
            .entry(ObjectTarget::new(ManagedKind::RoleBinding, GATEWAY))
            .or_default()
            .removed = true;
    });
    assert!((9..=11).contains(&removed), "{removed} writes in ten minutes");
}

#[test]
fn what_an_admission_policy_makes_of_our_objects_is_told_and_tried_now_and_then() {
    let mut world = World::serving(json!({}));
    let target = ObjectTarget::new(ManagedKind::Deployment, GATEWAY);
    let known = world.observed.disturbances.entry(target.clone()).or_default();
    let stamp =
        world.observed.gateway.objects.get(&ManagedKind::Deployment).unwrap().applied_hash.clone();
    (known.applied_hash, known.applied_at, known.overridden_field) =
        (stamp, Some(world.now), Some("spec.replicas".to_owned()));
    world.step();
    assert_eq!(
        world.says("Ready"),
        "True Stable",
        "who may change what we write has the last word"
    );
    let message = world.condition("Ready").message;
    assert!(
        message.ends_with(
            "Deployment slipway-gateway: spec.replicas is changed by an admission webhook or policy"
        ),
        "{message}"
    );
    world.writes.clear();
    for _ in 0..660 {
        world.tick(1);
    }
    assert_eq!(
        world.writes.iter().filter(|word| *word == "apply ").count(),
        1,
        "{:?}",
        world.writes
    );
    assert!(!world.condition("Ready").message.contains("admission"), "it was taken this time");
}

/// The template of a ReplicaSet is restored with the digest that its first pod reported.
#[test]
fn a_changed_template_is_put_back_with_the_digest_that_was_found() {
    let mut world = World::serving(json!({ "model": { "digest": null } }));
    assert_eq!(world.set("v1").digest, ModelDigest::Pinned(FOUND.to_owned()));
    let name = world.set("v1").name.clone();
    // Writes by the operator's other field managers are not changes by other clients.
    for pointer in
        ["/f:spec/f:replicas", "/f:metadata/f:annotations/f:ml.slipway.dev~1model-digest"]
    {
        let fields = world.set("v1").managed_fields.fields.clone().unwrap();
        assert!(fields.pointer(pointer).is_none(), "{pointer}");
    }
    assert!(world.plan().actions.is_empty());
    take(&mut world.set_mut("v1").managed_fields, "/f:spec/f:template", "kubectl-set");
    let plan = world.plan();
    let [PlanAction::Restore { desired, .. }] = &plan.actions[..] else {
        panic!("{:#?}", plan.actions)
    };
    let DesiredObject::ReplicaSet(set) = &**desired else { panic!("{desired:#?}") };
    let spec = set.spec.as_ref().unwrap();
    assert_eq!((spec.replicas, set.metadata.name.as_deref()), (Some(3), Some(name.as_str())));
    let pod = spec.template.as_ref().unwrap().spec.as_ref().unwrap();
    let env = pod.containers[0].env.as_ref().unwrap().iter();
    let told: Vec<_> = env
        .filter(|it| it.name == slipway_objects::DIGEST_VARIABLE)
        .map(|it| it.value.as_deref())
        .collect();
    assert_eq!(told, [Some(FOUND)]);
    assert_eq!(
        desired.applied_hash(),
        world.set("v1").applied_hash,
        "it is still what it was made from"
    );
    // The content of a ReplicaSet of another version of the operator is not known, so it is not
    // changed.
    world.observed.settings.runtime_image = "runtime:2".to_owned();
    assert!(world.plan().actions.is_empty());
}

#[test]
fn what_others_add_to_our_objects_stays_theirs() {
    let mut world = World::serving(json!({}));
    for (_, managed) in managed(&mut world) {
        let mut fields = managed.fields.as_deref().unwrap().clone();
        fields["f:metadata"]["f:annotations"]["f:theirs"] = json!({});
        *managed = ManagedFields {
            fields: Some(Arc::new(fields)),
            changed_by: Some("kube-controller-manager".to_owned()),
        };
    }
    assert!(world.plan().actions.is_empty(), "{:#?}", world.plan().actions);
    let desired = slipway_objects::stable_service(&world.observed.object);
    assert_eq!(
        fields::fields_after_apply(&desired).lost_field(&fields::compared_fields(&desired)),
        None
    );
}
