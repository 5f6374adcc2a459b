//! ModelDeployments that the operator cannot plan, because it cannot deserialize them or because
//! they are too large. It reports the problem and changes none of their objects.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeployment;

use super::support::fakes::Fakes;
use super::support::world::{World, condition, spec};
use super::support::{audit, eventually};
use super::two_operators::writes;
use super::{is_stable, quiet, untyped};

/// A time that the API server accepts and the Rust types reject: it allows any number of fractional
/// digits, they at most nine.
fn unreadable() -> Value {
    json!({"status": {"traffic": {"confirmedTime": "2020-01-01T00:00:00.1234567890123Z"}}})
}

/// Creates a ModelDeployment that cannot be deserialized.
async fn create_unreadable(world: &World, name: &str) {
    world.create(name, spec("v1")).await;
    untyped(world)
        .patch_status(name, &PatchParams::default(), &Patch::Merge(unreadable()))
        .await
        .unwrap();
    world.api::<ModelDeployment>().get(name).await.expect_err("our types cannot read it");
}

/// A spec above the size limit: it has environment variables of the maximum size that the API
/// server accepts.
fn large() -> Value {
    let mut all = spec("v1");
    let variable =
        |number| json!({"name": format!("LARGE_{number}"), "value": "x".repeat(16 << 10)});
    let variables: Vec<Value> = (0..18).map(variable).collect();
    all["template"] = json!({"spec": {"containers": [{"name": "server", "env": variables}]}});
    all
}

fn is_too_large(object: Option<&ModelDeployment>) -> bool {
    condition(object, "Stalled") == "True/TooLarge"
}

/// Reasons of the warnings about a ModelDeployment, in order.
async fn warnings(world: &World, name: &str) -> Vec<String> {
    let all = world.api::<Event>().list(&ListParams::default()).await.unwrap();
    let about = |it: &Event| it.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(name);
    let warnings = all.into_iter().filter(|it| about(it) && it.type_.as_deref() == Some("Warning"));
    let mut reasons: Vec<String> = warnings.filter_map(|it| it.reason).collect();
    reasons.sort_unstable();
    reasons
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn an_object_that_cannot_be_read_does_not_stop_the_others() {
    let world = World::new("unreadable").await;
    let fakes = Fakes::start(&world, 14).await;
    create_unreadable(&world, "bad").await;

    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("good", spec("v1")).await;
    world.until("the other one is stable", "good", is_stable).await;
    eventually("an event about the bad one", async || {
        warnings(&world, "bad").await == ["InvalidSpec"]
    })
    .await;
    assert!(
        world.api::<Service>().get_opt("bad").await.unwrap().is_none(),
        "nothing of it is touched"
    );
    operator.end().await.unwrap();
}

/// The running pods stay as they are, the status reports the problem and its solution once, and the
/// object is planned again after it was reduced.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn an_object_that_is_too_large_is_told_so_and_serves_on() {
    let world = World::new("large").await;
    let fakes = Fakes::start(&world, 29).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", spec("v1")).await;
    world.until("stable", "m", is_stable).await;
    // The confirmation is the last change without a user's action.
    let confirmed = |o: Option<&ModelDeployment>| {
        let traffic = o.and_then(|o| o.status.as_ref()?.traffic.as_ref());
        traffic.is_some_and(|traffic| traffic.confirmed_generation == traffic.generation)
    };
    let before = world.until("confirmed", "m", confirmed).await.unwrap().status.unwrap();
    world.create("born", large()).await;
    world.until("it is told although it never was small", "born", is_too_large).await;
    assert!(
        world.api::<Service>().get_opt("born").await.unwrap().is_none(),
        "nothing is made for it"
    );

    quiet(&world.plane.audit_log(), &operator.user).await;
    let written = writes(&world, &operator.user);
    world.merge("m", json!({"spec": large()})).await;
    let object = world.until("it is told", "m", is_too_large).await.unwrap();
    let status = object.status.unwrap();
    let said = status.conditions.iter().find(|it| it.type_ == "Stalled").unwrap();
    assert!(
        said.message.contains("256 KiB is the most") && said.message.contains("ConfigMap"),
        "{}",
        said.message
    );
    assert_eq!(
        (status.traffic, status.stable),
        (before.traffic, before.stable),
        "what serves is not touched"
    );
    quiet(&world.plane.audit_log(), &operator.user).await;
    let since = writes(&world, &operator.user).split_off(written.len());
    assert_eq!(since, ["patch modeldeployments m"], "one write of the status, and nothing else");
    assert_eq!(warnings(&world, "m").await, ["TooLarge"]);

    world.merge("m", json!({"spec": {"template": null}})).await;
    world.until("it is planned again", "m", is_stable).await;
    operator.end().await.unwrap();
}

/// Another operator may be able to plan them, so only that one reports problems.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn what_cannot_be_planned_is_left_alone_in_a_namespace_of_another() {
    let world = World::new("unplanned").await;
    let fakes = Fakes::start(&world, 30).await;
    let lease: Lease = serde_json::from_value(json!({
        "metadata": {"name": "slipway-modeldeployments"},
        "spec": {"holderIdentity": "elsewhere/theirs", "leaseDurationSeconds": 1800,
                 "renewTime": format!("{:.6}", Timestamp::now())}
    }))
    .unwrap();
    world.api::<Lease>().create(&PostParams::default(), &lease).await.unwrap();
    create_unreadable(&world, "bad").await;
    world.create("large", large()).await;

    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    for name in ["bad", "large"] {
        eventually("it is told who acts", async || !warnings(&world, name).await.is_empty()).await;
    }
    // Also when the object changes in the meantime.
    for name in ["bad", "large"] {
        let change = json!({"metadata": {"annotations": {"changed": "yes"}}});
        untyped(&world).patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }
    quiet(&world.plane.audit_log(), &operator.user).await;
    assert_eq!(writes(&world, &operator.user), Vec::<String>::new());
    for name in ["bad", "large"] {
        assert_eq!(warnings(&world, name).await, ["OtherOperator"], "{name}");
    }
    assert!(world.api::<ModelDeployment>().get("large").await.unwrap().status.is_none());
    assert!(untyped(&world).get("bad").await.unwrap().data["status"]["conditions"].is_null());

    let ours = json!({"spec": {"holderIdentity": "unplanned/slipway-operator"}});
    let leases = world.api::<Lease>();
    leases
        .patch("slipway-modeldeployments", &PatchParams::default(), &Patch::Merge(ours))
        .await
        .unwrap();
    world.until("it is told by who looks after it now", "large", is_too_large).await;
    eventually("and so is the other one", async || {
        warnings(&world, "bad").await == ["InvalidSpec", "OtherOperator"]
    })
    .await;
    assert_eq!(warnings(&world, "large").await, ["OtherOperator", "TooLarge"]);
    let asked = audit::requests(&world.plane.audit_log(), &operator.user);
    let touched = asked
        .iter()
        .filter(|it| it.object_ref.name == "bad" && it.object_ref.resource != "events")
        .count();
    assert_eq!(touched, 0, "of what cannot be read nothing is written");
    operator.end().await.unwrap();
}
