//! Two operators in one cluster: each namespace is managed by one of them.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::support::fakes::Fakes;
use super::support::world::{World, is_promoted, quick};
use super::support::{audit, eventually};
use super::{is_stable, quiet};

/// Writes of an operator as `verb resource name`, without Events and Leases.
pub(crate) fn writes(world: &World, user: &str) -> Vec<String> {
    let all = audit::requests(&world.plane.audit_log(), user).into_iter();
    let reads = ["get", "list", "watch"];
    let ours = all.filter(|it| {
        !reads.contains(&it.verb.as_str())
            && !["events", "leases"].contains(&it.object_ref.resource.as_str())
    });
    ours.map(|it| format!("{} {} {}", it.verb, it.object_ref.resource, it.object_ref.name))
        .collect()
}

/// Regression test: two operators with different images rolled the Deployment of the gateway
/// endlessly.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn a_namespace_has_one_operator_and_another_leaves_it_alone() {
    let world = World::new("two-operators").await;
    let fakes = Fakes::start(&world, 28).await;
    let fakes = fakes.arguments();
    let [port, prometheus] = fakes.each_ref().map(String::as_str);
    let first = world.operator(&[port, prometheus]);
    world.create("m", quick("v1")).await;
    world.until("stable", "m", is_stable).await;
    quiet(&world.plane.audit_log(), &first.user).await;
    let gateway = async || world.api::<Deployment>().get("slipway-gateway").await.unwrap();
    let before = gateway().await.metadata.generation;

    // It is deleted with the gateway, also on clusters where only a client that may delete an
    // object may add an owner to it (OwnerReferencesPermissionEnforcement).
    let owners = async || {
        let lease = world.api::<Lease>().get("slipway-modeldeployments").await.unwrap();
        lease
            .metadata
            .owner_references
            .into_iter()
            .flatten()
            .map(|owner| owner.kind)
            .collect::<Vec<_>>()
    };
    eventually("the Lease is the gateway's", async || owners().await == ["ServiceAccount"]).await;

    let other = ["--lease-name=second", "--gateway-image=second:1", "--gateway-update=Immediate"];
    let second = world.operator(&[&[port, prometheus], &other[..]].concat());
    let told = async || {
        let events = world.api::<Event>().list(&ListParams::default()).await.unwrap();
        let reason = |it: &Event| it.reason.as_deref() == Some("OtherOperator");
        events.items.into_iter().find(reason).and_then(|it| it.note)
    };
    eventually("it is told", async || told().await.is_some()).await;
    let note = told().await.unwrap();
    assert!(note.contains("the operator two-operators/slipway-operator"), "{note}");
    assert!(note.contains("Write two-operators/second as holderIdentity"), "{note}");
    // Changes in the namespace are handled by the first operator in the meantime.
    world.merge("m", json!({"spec": quick("v2")})).await;
    world.until("promoted", "m", is_promoted("v2")).await;
    quiet(&world.plane.audit_log(), &first.user).await;
    assert_eq!(writes(&world, &second.user), Vec::<String>::new());
    assert_eq!(gateway().await.metadata.generation, before);
    let metrics = second.metrics().await;
    assert!(metrics.contains("slipway_operator_namespaces_of_others 1"), "{metrics}");

    // A user hands the namespace over.
    let leases = world.api::<Lease>();
    let holder = json!({"spec": {"holderIdentity": "two-operators/second"}});
    leases
        .patch("slipway-modeldeployments", &PatchParams::default(), &Patch::Merge(holder))
        .await
        .unwrap();
    let image =
        async || gateway().await.spec.unwrap().template.spec.unwrap().containers[0].image.clone();
    eventually("the second one acts", async || image().await.as_deref() == Some("second:1")).await;
    quiet(&world.plane.audit_log(), &second.user).await;
    let (written, generation) = (writes(&world, &first.user), gateway().await.metadata.generation);
    world.merge("m", json!({"spec": quick("v3")})).await;
    world.until("promoted by the second one", "m", is_promoted("v3")).await;
    quiet(&world.plane.audit_log(), &second.user).await;
    assert_eq!(writes(&world, &first.user), written, "the first one leaves it alone");
    assert_eq!(gateway().await.metadata.generation, generation);
    first.end().await.unwrap();
    second.end().await.unwrap();
}
