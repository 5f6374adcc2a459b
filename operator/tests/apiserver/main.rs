//! Tests of the operator against a real API server. Run them with
//! `cargo test -p slipway-operator --test apiserver -- --ignored`; see [`support`] for the binaries
//! that they need.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod children;
mod conflicts;
mod gateway_settings;
mod leader_election;
mod orphans;
mod refused;
mod request_budget;
mod restart;
mod scale;
#[path = "../support/mod.rs"]
mod support;
mod two_operators;
mod unplanned;

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use slipway_cluster_views::OwnWrites;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};
use slipway_operator::apply::{ModelIdentity, WriteFault, status};
use support::fakes::Fakes;
use support::world::{World, condition, model, spec};
use support::{audit, eventually};

fn is_stable(object: Option<&ModelDeployment>) -> bool {
    condition(object, "Reconciling").is_empty() && condition(object, "Ready").starts_with("True")
}

/// The API of ModelDeployments without the Rust types: it accepts whatever a user could write.
fn untyped(world: &World) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("ml.slipway.dev", "v1alpha1", "ModelDeployment");
    Api::namespaced_with(world.admin.clone(), &world.namespace, &ApiResource::from_gvk(&kind))
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn the_api_server_holds_the_rules_of_the_crd() {
    let world = World::new("rules").await;
    let api = untyped(&world);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let create = async |name: &str, spec: Value| {
        let object: DynamicObject = serde_json::from_value(model(name, spec)).unwrap();
        api.create(&dry, &object).await.map(drop).map_err(|e| e.to_string())
    };
    let with = |more: Value| {
        let mut spec = spec("v1");
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    create("plain", spec("v1")).await.unwrap();
    create(
        "steps",
        with(json!({"strategy": {"canary": {"steps": [{"setWeight": "0.5%"}, {"pause": {}}]}}})),
    )
    .await
    .unwrap();
    create(
        "cpu",
        with(
            json!({"template": {"spec": {"containers": [{"name": "server", "resources": {"requests": {"cpu": 1}}}]}}}),
        ),
    )
    .await
    .unwrap();
    for (name, more, message) in [
        ("a-preview", json!({}), "must not end in '-preview'"),
        ("too-many-characters-for-the-name-of-a-service", json!({}), "at most 40 characters"),
        ("uri", json!({"model": {"uri": "ftp://host/model"}}), "spec.model.uri"),
        (
            "digest",
            json!({"model": {"uri": "http://host/m", "digest": "sha256:zz"}}),
            "spec.model.digest",
        ),
        (
            "two",
            json!({"strategy": {"canary": {"steps": [{"setWeight": 5, "pause": {}}]}}}),
            "exactly one of",
        ),
        ("weight", json!({"strategy": {"canary": {"steps": [{"setWeight": 101}]}}}), "setWeight"),
        (
            "percent",
            json!({"strategy": {"canary": {"steps": [{"setWeight": "101%"}]}}}),
            "setWeight",
        ),
        (
            "kind",
            json!({"strategy": {"type": "BlueGreen", "canary": {}}}),
            "only allowed when spec.strategy.type is Canary",
        ),
        (
            "gate",
            json!({"analysis": {"mode": "Custom", "gates": [{"name": "g", "type": "PromQL"}]}}),
            "required when the gate's type is PromQL",
        ),
        (
            "scale",
            json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}),
            "must not be greater than maxReplicas",
        ),
        ("upper-case", json!({"traffic": {"hosts": ["M.example.org"]}}), "spec.traffic.hosts[0]"),
        (
            "of-a-service",
            json!({"traffic": {"hosts": ["b.team.svc"]}}),
            "spec.traffic.hosts: Invalid value: must not be the address",
        ),
        (
            "twice",
            json!({"traffic": {"hosts": ["m.example.org", "m.example.org"]}}),
            "Duplicate value",
        ),
    ] {
        let refusal = create(name, with(more)).await.expect_err(name);
        assert!(refusal.contains(message), "{name}: {refusal}");
    }
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn only_our_fields_are_ours() {
    let world = World::new("fields").await;
    let fakes = Fakes::start(&world, 11).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", spec("v1")).await;
    world.until("stable", "m", is_stable).await;

    // Another client adds fields and removes the hash of the applied content, so that the operator
    // applies again.
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "m", "annotations": {"theirs": "yes"}}, "spec": {"sessionAffinity": "ClientIP"}
    });
    let services = world.api::<Service>();
    services
        .patch("m", &PatchParams::apply("somebody").force(), &Patch::Apply(theirs))
        .await
        .unwrap();
    let unmark = json!({"metadata": {"annotations": {"ml.slipway.dev/applied": null}}});
    services.patch("m", &PatchParams::default(), &Patch::Merge(unmark)).await.unwrap();
    let healed = |s: Option<&Service>| {
        s.is_some_and(|s| s.annotations().contains_key("ml.slipway.dev/applied"))
    };
    let service = world.until("applied again", "m", healed).await.unwrap();
    assert_eq!(service.annotations().get("theirs").map(String::as_str), Some("yes"));
    assert_eq!(service.spec.as_ref().unwrap().session_affinity.as_deref(), Some("ClientIP"));

    // A status that another client wrote is corrected, too.
    let object = world.api::<ModelDeployment>().get("m").await.unwrap();
    let generation = object.status.as_ref().unwrap().traffic.as_ref().unwrap().generation;
    let broken = json!({"status": {"selector": "nonsense"}});
    world
        .api::<ModelDeployment>()
        .patch_status("m", &PatchParams::default(), &Patch::Merge(broken))
        .await
        .unwrap();
    let right = |o: Option<&ModelDeployment>| {
        o.is_some_and(|o| o.status.as_ref().unwrap().selector != "nonsense")
    };
    let object = world.until("status healed", "m", right).await.unwrap();
    assert_eq!(object.status.as_ref().unwrap().traffic.as_ref().unwrap().generation, generation);
    let managers: Vec<_> =
        object.managed_fields().iter().map(|m| m.manager.clone().unwrap()).collect();
    assert!(managers.contains(&"slipway-status".to_owned()), "{managers:?}");
    assert!(!managers.contains(&"slipway".to_owned()), "we never write to the spec: {managers:?}");
    operator.end().await.unwrap();
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn the_gateway_is_shared_by_its_owners() {
    let world = World::new("shared").await;
    let fakes = Fakes::start(&world, 17).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    for name in ["a", "b", "c"] {
        world.create(name, spec("v1")).await;
        world.until("stable", name, is_stable).await;
    }
    let gateway = world.api::<Deployment>().get("slipway-gateway").await.unwrap();
    let mut owners: Vec<_> = gateway.owner_references().iter().map(|o| o.name.as_str()).collect();
    owners.sort_unstable();
    assert_eq!(owners, ["a", "b", "c"]);
    assert!(gateway.owner_references().iter().all(|o| o.controller.is_none()));
    let mut managers: Vec<_> =
        gateway.managed_fields().iter().map(|m| m.manager.as_deref().unwrap()).collect();
    managers.sort_unstable();
    assert_eq!(managers, ["slipway", "slipway-owners"], "as many as it would have with one owner");
    operator.end().await.unwrap();
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn the_keys_of_a_namespace_are_made_once_and_never_read() {
    let world = World::new("keys").await;
    let fakes = Fakes::start(&world, 19).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    for name in ["a", "b"] {
        world.create(name, spec("v1")).await;
        world.until("stable", name, is_stable).await;
    }
    let secret = world.api::<Secret>().get("slipway-keys").await.unwrap();
    let account = world.api::<ServiceAccount>().get("slipway-gateway").await.unwrap();
    assert_eq!(
        secret.owner_references()[0].uid,
        account.uid().unwrap(),
        "it goes with the gateway"
    );
    let lengths = secret
        .data
        .unwrap()
        .into_iter()
        .map(|(key, value)| (key, value.0.len()))
        .collect::<Vec<_>>();
    assert_eq!(lengths, [("master".to_owned(), 32), ("token".to_owned(), 43)]);
    let gateway = world.api::<Deployment>().get("slipway-gateway").await.unwrap();
    assert!(
        secret.metadata.creation_timestamp <= gateway.metadata.creation_timestamp,
        "before the pods that want them"
    );
    operator.end().await.unwrap();

    // A namespace with keys of the user's own keeps them, also after another operator starts.
    let own = json!({"stringData": {"token": "a-token-of-my-own-that-is-long-enough"}});
    world
        .api::<Secret>()
        .patch("slipway-keys", &PatchParams::default(), &Patch::Merge(own))
        .await
        .unwrap();
    let next = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("c", spec("v1")).await;
    world.until("stable", "c", is_stable).await;
    let token = world
        .api::<Secret>()
        .get("slipway-keys")
        .await
        .unwrap()
        .data
        .unwrap()
        .remove("token")
        .unwrap();
    assert_eq!(token.0, b"a-token-of-my-own-that-is-long-enough");
    let verbs: BTreeSet<String> = audit::requests(&world.plane.audit_log(), &next.user)
        .into_iter()
        .filter(|it| it.object_ref.resource == "secrets")
        .map(|it| it.verb)
        .collect();
    assert_eq!(verbs, BTreeSet::from(["create".to_owned()]));
    next.end().await.unwrap();
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn the_scale_subresource_sizes_the_stable_revision() {
    let world = World::new("scale").await;
    let fakes = Fakes::start(&world, 12).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", spec("v1")).await;
    let object = world.until("stable", "m", is_stable).await.unwrap();
    let revision = object.status.unwrap().stable.unwrap().revision;

    let models = world.api::<ModelDeployment>();
    let five = json!({"spec": {"replicas": 5}});
    models.patch_scale("m", &PatchParams::default(), &Patch::Merge(five)).await.unwrap();
    let name = format!("m-{revision}");
    let sized =
        |s: Option<&ReplicaSet>| s.is_some_and(|s| s.spec.as_ref().unwrap().replicas == Some(5));
    let set = world.until("five replicas", &name, sized).await.unwrap();
    let owner = |f: &str| {
        set.managed_fields().iter().find(|m| {
            let fields = m.fields_v1.as_ref().map(|f| f.0.clone()).unwrap_or_default();
            fields.pointer("/f:spec/f:replicas").is_some() && m.manager.as_deref() == Some(f)
        })
    };
    assert!(owner("slipway-scale").is_some(), "{:?}", set.managed_fields());
    let five =
        |o: Option<&ModelDeployment>| o.is_some_and(|o| o.status.as_ref().unwrap().replicas == 5);
    world.until("five in the status", "m", five).await;
    let scale: Scale = models.get_scale("m").await.unwrap();
    let status = scale.status.unwrap();
    assert_eq!(status.replicas, 5);
    assert_eq!(status.selector.unwrap(), slipway_crds::labels::scale_selector("m"));
    operator.end().await.unwrap();
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn a_foreign_object_of_the_same_name_is_never_overwritten() {
    let world = World::new("foreign").await;
    let fakes = Fakes::start(&world, 13).await;
    let foreign: Service = serde_json::from_value(json!({
        "metadata": {"name": "m", "labels": {"app": "theirs"}}, "spec": {"ports": [{"port": 1234}], "selector": {"app": "theirs"}}
    }))
    .unwrap();
    let services = world.api::<Service>();
    let before = services.create(&PostParams::default(), &foreign).await.unwrap();
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", spec("v1")).await;

    let refused = |o: Option<&ModelDeployment>| condition(o, "Stalled") == "True/WriteRefused";
    let object = world.until("the refusal is shown", "m", refused).await.unwrap();
    let ready =
        object.status.unwrap().conditions.into_iter().find(|c| c.type_ == "Stalled").unwrap();
    assert!(
        ready.message.contains("Service m") && ready.message.contains("not managed by"),
        "{}",
        ready.message
    );
    let events = world.api::<Event>();
    eventually("an event", async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.iter().any(|e| e.reason.as_deref() == Some("WriteRefused"))
    })
    .await;
    assert_eq!(services.get("m").await.unwrap().resource_version(), before.resource_version());

    services.delete("m", &Default::default()).await.unwrap();
    world.until("stable once the name is free", "m", is_stable).await;
    operator.end().await.unwrap();
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn a_status_planned_on_an_older_view_is_refused() {
    let world = World::new("stale").await;
    world.create("m", spec("v1")).await;
    let seen = world.api::<ModelDeployment>().get("m").await.unwrap();
    let subject = ModelIdentity {
        namespace: seen.namespace().unwrap(),
        name: "m".into(),
        uid: seen.uid().unwrap(),
    };
    let (client, own) = (world.admin.clone(), OwnWrites::default());
    let (old, status) = (seen.resource_version(), |replicas| ModelDeploymentStatus {
        replicas,
        ..Default::default()
    });
    status::apply_status(&client, &own, &subject, old.as_deref(), &status(1)).await.unwrap();
    // The write of a second leader, or of this operator with stale caches.
    let refused = status::apply_status(&client, &own, &subject, old.as_deref(), &status(2))
        .await
        .unwrap_err();
    assert!(matches!(refused.fault, WriteFault::Conflict(_)), "{refused}");
    let newest = own.newest(&seen).resource_version();
    status::apply_status(&client, &own, &subject, newest.as_deref(), &status(3)).await.unwrap();
}

/// Waits for an interval between two lease renewals without any other request.
async fn quiet(log: &std::path::Path, user: &str) {
    let seen = || audit::requests(log, user);
    let mut since = seen().len();
    eventually("a quiet time between two renewals of the lease", async || {
        let all = seen();
        if let Some(last) = all[since..].iter().rposition(|r| !r.is_of_lease()) {
            since += last + 1;
        }
        // Three renewals enclose the interval; each consists of a patch and a get.
        all[since..].iter().filter(|r| r.verb == "patch").count() >= 2
    })
    .await;
}
