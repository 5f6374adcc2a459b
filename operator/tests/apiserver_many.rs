//! A thousand ModelDeployments in one namespace, against an API server of their own: with a shared
//! one, the other tests would exceed their deadlines.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[allow(dead_code, reason = "the other tests against an API server use more of it")]
mod support;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, PropagationPolicy};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_objects::MAX_OWNERS;
use support::fakes::Fakes;
use support::world::{World, condition, spec};
use support::{audit, eventually_within};

const COUNT: usize = 1000;
const LONG: Duration = Duration::from_secs(600);

/// All of them become stable, the shared objects are written no more often than they may have
/// owners, and no owner list exceeds its limit. When all of them are deleted, the shared objects
/// are deleted, too: by the operator when they have no owner, otherwise by the garbage collector.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn the_owners_of_the_gateway_are_bounded() {
    let world = World::new("many").await;
    let fakes = Fakes::start(&world, 27).await;
    let [port, prometheus] = fakes.arguments();
    let operator = world.operator(&[&port, &prometheus, "--network-policies=Enabled"]);
    let begun = Instant::now();
    let create = |n: usize| {
        let world = &world;
        async move { world.create(&format!("m{n:04}"), spec("v1")).await }
    };
    stream::iter(0..COUNT).map(create).buffer_unordered(8).for_each(|_| async {}).await;
    let models = world.api::<ModelDeployment>();
    let all_stable = async || {
        let all = models.list(&ListParams::default()).await.unwrap();
        all.items.len() == COUNT
            && all.items.iter().all(|it| condition(Some(it), "Ready") == "True/Stable")
    };
    eventually_within(LONG, "all are stable", all_stable).await;
    println!("{COUNT} are stable after {:?}", begun.elapsed());

    let gateway = world.api::<Deployment>().get("slipway-gateway").await.unwrap();
    assert!(gateway.owner_references().is_empty(), "{}", gateway.owner_references().len());
    let bytes = serde_json::to_vec(&gateway).unwrap().len();
    assert!(bytes < 16 << 10, "{bytes} bytes");
    let requests = audit::requests(&world.plane.audit_log(), &operator.user);
    let shared = |resource: &str| {
        let ours = requests.iter().filter(|it| {
            it.object_ref.resource == resource && it.object_ref.name == "slipway-gateway"
        });
        ours.filter(|it| it.verb == "patch" || it.verb == "create").count()
    };
    for resource in [
        "serviceaccounts",
        "rolebindings",
        "services",
        "deployments",
        "poddisruptionbudgets",
        "networkpolicies",
    ] {
        let writes = shared(resource);
        println!("{writes} writes to {resource}");
        assert!(writes <= 2 * MAX_OWNERS + 8, "{writes} writes to {resource}");
    }
    let writes = requests.iter().filter(|it| it.verb == "patch" && !it.is_of_lease()).count();
    println!("{writes} writes in all");
    assert!(writes <= COUNT * 13, "{writes} writes");

    let background = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    models.delete_collection(&background, &ListParams::default()).await.unwrap();
    let swept = async || {
        models.list(&ListParams::default()).await.unwrap().items.is_empty()
            && is_swept::<Deployment>(&world).await
            && is_swept::<PodDisruptionBudget>(&world).await
            && is_swept::<Service>(&world).await
            && is_swept::<NetworkPolicy>(&world).await
            && is_swept::<RoleBinding>(&world).await
            && is_swept::<ServiceAccount>(&world).await
    };
    eventually_within(LONG, "what they shared is gone", swept).await;
    operator.end().await.unwrap();
}

/// Whether the shared object is deleted, or has owners, which means that the garbage collector
/// (missing in this control plane) would delete it: near the end of the deletions the operator may
/// have added the few remaining ModelDeployments as owners, which are deleted by now, too.
async fn is_swept<K>(world: &World) -> bool
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let found = world.api::<K>().get_opt("slipway-gateway").await.unwrap();
    found.is_none_or(|it| !it.owner_references().is_empty())
}
