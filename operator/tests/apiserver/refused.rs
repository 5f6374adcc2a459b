//! Writes that the API server rejects, or that would overwrite an object of another owner.

use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use slipway_crds::v1alpha1::ModelDeployment;

use super::is_stable;
use super::support::fakes::Fakes;
use super::support::world::{World, condition, spec};
use super::support::{audit, eventually, eventually_within};

/// Sizes of the ReplicaSets of `m`, without that of the gateway.
async fn sizes(sets: &Api<ReplicaSet>) -> Vec<i32> {
    let of_m = ListParams::default().labels("app.kubernetes.io/part-of=m");
    let all = sets.list(&of_m).await.unwrap();
    all.into_iter().filter_map(|set| set.spec.and_then(|spec| spec.replicas)).collect()
}

/// Regression test: a foreign disruption budget of the same name kept the model at one pod.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn one_refused_child_stops_nothing_else() {
    let world = World::new("refused").await;
    let fakes = Fakes::start(&world, 18).await;
    let budgets = world.api::<PodDisruptionBudget>();
    let foreign: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": "m"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "theirs"}}}
    }))
    .unwrap();
    budgets.create(&PostParams::default(), &foreign).await.unwrap();
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", spec("v1")).await;
    let refused = |o: Option<&ModelDeployment>| {
        condition(o, "Stalled") == "True/WriteRefused" && condition(o, "Ready").starts_with("True")
    };
    world.until("it serves, and the refusal is shown", "m", refused).await;
    let sets = world.api::<ReplicaSet>();
    world.merge("m", json!({"spec": {"replicas": 3}})).await;
    eventually("three pods are asked for", async || sizes(&sets).await == [3]).await;
    let counted = |o: Option<&ModelDeployment>| {
        refused(o) && o.and_then(|o| o.status.as_ref()).is_some_and(|status| status.replicas == 3)
    };
    let before = world.until("they are counted", "m", counted).await.unwrap().resource_version();

    // The write is retried, and the status is not written again.
    let log = world.plane.audit_log();
    let tried = || {
        let all = audit::requests(&log, &operator.user).into_iter();
        all.filter(|it| {
            it.object_ref.resource == "poddisruptionbudgets" && it.object_ref.name == "m"
        })
        .count()
    };
    let start = tried();
    eventually_within(Duration::from_secs(60), "three tries", async || tried() >= start + 3).await;
    let object = world.api::<ModelDeployment>().get("m").await.unwrap();
    assert_eq!(object.resource_version(), before, "Stalled flaps: {:#?}", object.status);

    budgets.delete("m", &Default::default()).await.unwrap();
    world.until("stable once the name is free", "m", is_stable).await;
    operator.end().await.unwrap();
}
