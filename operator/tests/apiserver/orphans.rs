//! ModelDeployments that are deleted without their children, and created again.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use slipway_crds::v1alpha1::ModelDeployment;

use super::children::objects;
use super::support::eventually;
use super::support::fakes::Fakes;
use super::support::world::{World, is_promoted, quick};
use super::{is_stable, quiet};

/// Does what `kubectl delete --cascade=orphan` does, including the part of the garbage collector,
/// which this control plane lacks.
async fn orphan(world: &World, name: &str) {
    let models = world.api::<ModelDeployment>();
    models.delete(name, &DeleteParams::orphan()).await.unwrap();
    for (version, kind) in [
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("policy/v1", "PodDisruptionBudget"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ] {
        let api = objects(world, version, kind);
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=slipway");
        for object in api.list(&ours).await.unwrap() {
            // Objects that a Deployment of the operator controls stay with it.
            if object.owner_references().iter().any(|owner| owner.kind != "ModelDeployment") {
                continue;
            }
            let none = json!({"metadata": {"ownerReferences": null}});
            api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(none))
                .await
                .unwrap();
        }
    }
    let done = json!({"metadata": {"finalizers": null}});
    models.patch(name, &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
    eventually("it is gone", async || models.get_opt(name).await.unwrap().is_none()).await;
}

/// Regression test: after a deletion without the children and an apply of the same manifest, the
/// operator owned no object any more.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn orphans_are_adopted() {
    let world = World::new("orphans").await;
    let fakes = Fakes::start(&world, 24).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", quick("v1")).await;
    world.until("stable", "m", is_stable).await;
    world.merge("m", json!({"spec": quick("v2")})).await;
    world.until("promoted", "m", is_promoted("v2")).await;
    quiet(&world.plane.audit_log(), &operator.user).await;
    let sets = async || {
        let all = world.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap();
        let view = |set: ReplicaSet| {
            let stable = set.annotations().get("ml.slipway.dev/stable-since").cloned();
            (set.name_any(), set.uid(), set.spec.unwrap().replicas, stable)
        };
        all.into_iter().map(view).collect::<Vec<_>>()
    };
    let before = sets().await;
    orphan(&world, "m").await;
    let again = world.create("m", quick("v2")).await;
    let object = world.until("stable again", "m", is_stable).await.unwrap();
    let status = object.status.unwrap();
    assert_eq!(status.stable.unwrap().version, "v2");
    assert!(status.rollout.is_none() && status.history.is_empty(), "nothing was rolled out");
    assert_eq!(status.traffic.unwrap().generation, 1, "and no weight was written but the first");
    eventually("all are controlled again", async || {
        // All its owners share the ReplicaSet of the gateway.
        let of_m = ListParams::default().labels("app.kubernetes.io/part-of=m");
        let sets = world.api::<ReplicaSet>().list(&of_m).await.unwrap().items;
        let services = world.api::<Service>().list(&of_m).await.unwrap().items;
        assert!(!sets.is_empty() && !services.is_empty());
        let metas =
            sets.iter().map(|it| &it.metadata).chain(services.iter().map(|it| &it.metadata));
        let mut owners = metas.map(|it| it.owner_references.clone().unwrap_or_default());
        owners.all(|all| {
            all.len() == 1
                && Some(&all[0].uid) == again.metadata.uid.as_ref()
                && all[0].controller == Some(true)
        })
    })
    .await;
    quiet(&world.plane.audit_log(), &operator.user).await;
    assert_eq!(
        sets().await,
        before,
        "the same ReplicaSets, of the same sizes, with the same marks"
    );
    operator.end().await.unwrap();
}
