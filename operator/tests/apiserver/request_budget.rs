//! The number of requests that a rollout needs.

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::ListParams;
use serde_json::json;
use slipway_crds::v1alpha1::ModelDeployment;

use super::support::fakes::Fakes;
use super::support::world::{World, spec};
use super::support::{audit, eventually};
use super::{is_stable, quiet};

/// Maximum number of requests of one canary with two weights and three replicas, including events
/// and without renewals of the lease.
const BUDGET: usize = 16;

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn a_canary_stays_within_its_budget_of_requests_and_idleness_costs_none() {
    let world = World::new("budget").await;
    let fakes = Fakes::start(&world, 16).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    let more = json!({
        "replicas": 3,
        "strategy": {"canary": {"steps": [{"setWeight": 50}, {"setWeight": 100}]}, "scaleDownDelaySeconds": 1},
        "analysis": {"intervalSeconds": 1}
    });
    let mut first = spec("v1");
    first.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.create("m", first).await;
    world.until("stable", "m", is_stable).await;
    let log = world.plane.audit_log();
    let asked = || -> Vec<audit::Request> {
        audit::requests(&log, &operator.user).into_iter().filter(|r| !r.is_of_lease()).collect()
    };
    quiet(&log, &operator.user).await;
    let creation = asked();
    let before = creation.len();
    let lines: Vec<String> = creation.iter().map(audit::Request::line).collect();
    println!("creation: {before} requests\n  {}", lines.join("\n  "));

    world.merge("m", json!({"spec": spec("v2")})).await;
    let promoted = |o: Option<&ModelDeployment>| {
        o.and_then(|o| o.status.as_ref()).is_some_and(|s| {
            s.stable.as_ref().is_some_and(|r| r.version == "v2") && s.rollout.is_none()
        })
    };
    world.until("promoted", "m", promoted).await;
    let old =
        |list: Vec<ReplicaSet>| list.iter().any(|s| s.spec.as_ref().unwrap().replicas == Some(0));
    let sets = world.api::<ReplicaSet>();
    eventually("the old revision is scaled down", async || {
        old(sets.list(&ListParams::default()).await.unwrap().items)
    })
    .await;
    quiet(&log, &operator.user).await;
    let all = asked();
    let cost: Vec<String> = all[before..].iter().map(audit::Request::line).collect();
    println!("canary: {} requests\n  {}", cost.len(), cost.join("\n  "));
    assert!(cost.len() <= BUDGET, "{} requests are more than {BUDGET}", cost.len());

    quiet(&log, &operator.user).await;
    assert_eq!(asked().len(), all.len(), "idleness costs nothing");
    let metrics = operator.metrics().await;
    assert!(
        metrics.contains("slipway_operator_rollouts_total{outcome=\"promoted\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("slipway_operator_gateway_streams 2"), "{metrics}");
    operator.end().await.unwrap();
}
