//! Of several processes of an operator exactly one acts.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_operator::process::error::OperatorError;

use super::is_stable;
use super::support::fakes::Fakes;
use super::support::world::{World, spec};
use super::support::{audit, eventually};

const LEADS: &str = "leading";

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn of_two_operators_one_acts_and_the_other_takes_over() {
    let world = World::new("leaders").await;
    let fakes = Fakes::start(&world, 15).await;
    let arguments = fakes.arguments();
    let arguments = arguments.each_ref().map(String::as_str);
    let first = world.operator(&arguments);
    eventually("the first leads", async || first.readiness().await == LEADS).await;
    let second = world.operator(&arguments);
    eventually("the second stands by", async || second.readiness().await == "standing by").await;
    world.create("m", spec("v1")).await;
    world.until("stable", "m", is_stable).await;
    let log = world.plane.audit_log();
    let acted =
        |user: &str| audit::requests(&log, user).into_iter().filter(|r| !r.is_of_lease()).count();
    assert_eq!(acted(&second.user), 0, "who stands by asks only for the lease");

    let (user, start) = (first.user.clone(), std::time::Instant::now());
    first.end().await.unwrap();
    let before = acted(&user);
    eventually("the second leads", async || second.readiness().await == LEADS).await;
    let took = start.elapsed();
    println!("hand-over took {} ms", took.as_millis());
    assert!(took.as_secs() < 4, "{took:?}");
    world.merge("m", json!({"spec": {"replicas": 2}})).await;
    let two =
        |o: Option<&ModelDeployment>| o.is_some_and(|o| o.status.as_ref().unwrap().replicas == 2);
    world.until("the second acts", "m", two).await;
    assert_eq!(acted(&user), before, "the first is silent");
    second.end().await.unwrap();
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn an_operator_that_lost_the_lease_ends() {
    let world = World::new("lost").await;
    let operator = world.operator(&[]);
    eventually("it leads", async || operator.readiness().await == LEADS).await;
    let theirs = json!({"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}});
    let leases = world.api::<Lease>();
    leases.patch("slipway-operator", &PatchParams::default(), &Patch::Merge(theirs)).await.unwrap();
    let end = operator.ended().await;
    assert!(matches!(end, Err(OperatorError::LeaseLost(_))), "{end:?}");
}
