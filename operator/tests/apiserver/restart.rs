//! Restarts: one pod is evicted at a time, identified by its UID and not only by its name, when the
//! disruption budgets allow it.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_cluster_views::{ClusterViews, OwnWrites};
use slipway_core::action::PlanAction;
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_operator::apply::locks::NamespaceLocks;
use slipway_operator::apply::{ActionApplier, ModelIdentity, WriteFault};

use super::support::fakes::Fakes;
use super::support::world::{World, condition, spec};
use super::support::{audit, eventually};
use super::{is_stable, quiet};

const POLICY: &str = "ValidatingAdmissionPolicy";
const BINDING: &str = "ValidatingAdmissionPolicyBinding";
/// The service account of the operator in the chart.
const ACCOUNT: &str = "system:serviceaccount:slipway-system:slipway";

/// Creates a running pod as its ReplicaSet would; this control plane has no ReplicaSet controller.
async fn make_pod(world: &World, name: &str, set: Option<&ReplicaSet>, ready: bool) -> String {
    let template = set.and_then(|set| set.spec.as_ref()?.template.as_ref()?.metadata.clone());
    let owner = set.map(|set| {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set.name_any(), "uid": set.uid(), "controller": true})
    });
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": name, "labels": template.and_then(|it| it.labels), "ownerReferences": owner.into_iter().collect::<Vec<_>>()
        },
        "spec": {"containers": [{"name": "server", "image": "server"}], "automountServiceAccountToken": false}
    }))
    .unwrap();
    let uid = world.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap().uid().unwrap();
    set_ready(world, name, ready).await;
    uid
}

async fn set_ready(world: &World, name: &str, ready: bool) {
    let ready = json!({"type": "Ready", "status": if ready { "True" } else { "False" }});
    let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
    world
        .api::<Pod>()
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

/// Sets the allowed disruptions in the status of the budget of `m`, as the disruption controller
/// would.
async fn allow(world: &World, pods: i32) {
    let budgets = world.api::<PodDisruptionBudget>();
    let generation = budgets.get("m").await.unwrap().metadata.generation;
    let status = json!({"status": {
        "observedGeneration": generation, "disruptionsAllowed": pods, "currentHealthy": 2, "desiredHealthy": 2 - pods, "expectedPods": 2
    }});
    budgets.patch_status("m", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Names of the pods of `m`.
async fn pods(world: &World) -> Vec<String> {
    let of_m = ListParams::default().labels("ml.slipway.dev/modeldeployment=m");
    world.api::<Pod>().list(&of_m).await.unwrap().iter().map(ResourceExt::name_any).collect()
}

/// Names of the pods whose eviction an operator requested and the API server answered with `code`.
fn evictions(world: &World, user: &str, code: u16) -> Vec<String> {
    let all = audit::requests(&world.plane.audit_log(), user).into_iter();
    let answered =
        all.filter(|it| it.object_ref.subresource == "eviction" && it.response_status.code == code);
    answered.map(|it| it.object_ref.name).collect()
}

/// Whether a restart is running with `done` pods replaced, and whether a budget blocks it.
fn restarting(done: usize, held: bool) -> impl Fn(Option<&ModelDeployment>) -> bool {
    move |object| {
        let conditions =
            object.and_then(|it| it.status.as_ref()).map(|it| it.conditions.as_slice());
        let said = conditions
            .into_iter()
            .flatten()
            .find(|it| it.type_ == "Reconciling" && it.reason == "Restarting");
        let begins = format!("{done} of 2 pods are new and ready");
        condition(object, "Stalled").is_empty()
            && said.is_some_and(|it| {
                it.message.contains(&begins)
                    && it.message.contains("held by a disruption budget") == held
            })
    }
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn a_restart_evicts_one_pod_at_a_time_when_the_budget_allows() {
    let world = World::new("restart").await;
    let fakes = Fakes::start(&world, 31).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    let mut two = spec("v1");
    two["replicas"] = json!(2);
    world.create("m", two).await;
    let before = world.until("stable", "m", is_stable).await.unwrap().status.unwrap();
    let set = format!("m-{}", before.stable.as_ref().unwrap().revision);
    let replicas = world.api::<ReplicaSet>().get(&set).await.unwrap();
    let [first, second, third, fourth] =
        ["aaaaa", "bbbbb", "ccccc", "ddddd"].map(|it| format!("{set}-{it}"));
    for name in [&first, &second] {
        make_pod(&world, name, Some(&replicas), true).await;
    }
    allow(&world, 0).await;

    // Later than the creation of the pods, which has a resolution of one second.
    let asked = Timestamp::from_second(Timestamp::now().as_second() + 1).unwrap();
    world.merge("m", json!({"spec": {"restartTime": asked.to_string()}})).await;
    world.until("it is told that the budget holds it", "m", restarting(0, true)).await;
    eventually("it is tried again", async || evictions(&world, &operator.user, 429).len() >= 3)
        .await;
    assert_eq!(pods(&world).await, [first.clone(), second.clone()]);
    assert!(
        evictions(&world, &operator.user, 429).iter().all(|name| *name == first),
        "always the same one"
    );

    allow(&world, 1).await;
    eventually("the first one is evicted", async || pods(&world).await == [second.clone()]).await;
    // The budget would allow another eviction while the new pod is missing or not ready, but the
    // operator does not request it.
    allow(&world, 1).await;
    make_pod(&world, &third, Some(&replicas), false).await;
    world.until("the budget is no matter any more", "m", restarting(0, false)).await;
    quiet(&world.plane.audit_log(), &operator.user).await;
    assert_eq!(evictions(&world, &operator.user, 201), std::slice::from_ref(&first));

    set_ready(&world, &third, true).await;
    eventually("the second one is evicted", async || pods(&world).await == [third.clone()]).await;
    world.until("it is counted", "m", restarting(1, false)).await;
    make_pod(&world, &fourth, Some(&replicas), true).await;
    let over = |o: Option<&ModelDeployment>| {
        let restarted = o.and_then(|o| o.status.as_ref()?.restarted_time.as_ref()).map(|it| it.0);
        is_stable(o) && restarted == Some(asked)
    };
    let status = world.until("the restart is over", "m", over).await.unwrap().status.unwrap();
    assert_eq!(
        (status.traffic, status.rollout),
        (before.traffic, None),
        "no weight and no rollout"
    );
    quiet(&world.plane.audit_log(), &operator.user).await;
    assert_eq!(evictions(&world, &operator.user, 201), [first, second]);
    assert_eq!(pods(&world).await, [third, fourth]);
    operator.end().await.unwrap();
}

/// Kubernetes never evicts a pod that matches two budgets: the user has to fix it, and the status
/// contains Kubernetes' message.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn a_second_budget_that_keeps_a_pod_is_told() {
    let world = World::new("two-budgets").await;
    let fakes = Fakes::start(&world, 32).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", spec("v1")).await;
    let status = world.until("stable", "m", is_stable).await.unwrap().status.unwrap();
    let set = format!("m-{}", status.stable.unwrap().revision);
    let replicas = world.api::<ReplicaSet>().get(&set).await.unwrap();
    make_pod(&world, &format!("{set}-aaaaa"), Some(&replicas), true).await;
    let labels = replicas.spec.unwrap().selector.match_labels;
    let theirs: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": "theirs"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    }))
    .unwrap();
    let budgets = world.api::<PodDisruptionBudget>();
    budgets.create(&PostParams::default(), &theirs).await.unwrap();
    allow(&world, 1).await;

    let asked = Timestamp::from_second(Timestamp::now().as_second() + 1).unwrap();
    world.merge("m", json!({"spec": {"restartTime": asked.to_string()}})).await;
    let told = |o: Option<&ModelDeployment>| {
        let mut all = o.and_then(|o| o.status.as_ref()).into_iter().flat_map(|it| &it.conditions);
        let said = all.find(|it| it.type_ == "Stalled" && it.reason == "WriteRefused");
        said.is_some_and(|it| it.message.contains("more than one PodDisruptionBudget"))
    };
    world.until("it is told", "m", told).await;
    budgets.delete("theirs", &DeleteParams::default()).await.unwrap();
    eventually("it is evicted", async || pods(&world).await.is_empty()).await;
    let mended = |o: Option<&ModelDeployment>| condition(o, "Stalled").is_empty();
    world.until("nothing is wrong any more", "m", mended).await;
    operator.end().await.unwrap();
}

/// A user may recreate a pod under the same name; the eviction must concern only the pod that the
/// operator observed.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn an_eviction_is_of_the_pod_that_was_seen() {
    let world = World::new("evict").await;
    let object = world.create("m", spec("v1")).await;
    let subject =
        ModelIdentity { namespace: "evict".into(), name: "m".into(), uid: object.uid().unwrap() };
    let (views, turns, own) =
        (ClusterViews::default(), NamespaceLocks::default(), OwnWrites::default());
    let applier = ActionApplier {
        client: &world.admin,
        views: &views,
        subject: &subject,
        locks: &turns,
        object: &object,
        own_writes: &own,
    };
    let uid = make_pod(&world, "m-0123456789-aaaaa", None, true).await;
    let evict =
        |uid: &str| PlanAction::Evict { name: "m-0123456789-aaaaa".into(), uid: uid.into() };
    let refused = applier
        .execute(&evict("of-its-predecessor"))
        .await
        .err()
        .expect("another pod of that name is evicted");
    assert!(matches!(refused.fault, WriteFault::Conflict(_)), "{refused}");
    let pods = world.api::<Pod>();
    assert!(pods.get("m-0123456789-aaaaa").await.unwrap().metadata.deletion_timestamp.is_none());
    applier.execute(&evict(&uid)).await.unwrap();
    assert!(pods.get_opt("m-0123456789-aaaaa").await.unwrap().is_none());
    // A pod that does not exist any more counts as evicted.
    applier.execute(&evict(&uid)).await.unwrap();
}

/// The chart's policy for the operator's token, and its binding, as Helm renders them.
fn policy() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/tests/golden/default.yaml");
    let text = fs::read_to_string(path).unwrap();
    let all = serde_yaml::Deserializer::from_str(&text).map(|it| Value::deserialize(it).unwrap());
    let ours = all.filter(|it| {
        it["metadata"]["name"] == "slipway-operator"
            && (it["kind"] == POLICY || it["kind"] == BINDING)
    });
    ours.collect()
}

/// Requests an eviction with the operator's account as a dry run; returns the rejection.
async fn refusal(client: &Client, namespace: &str, pod: &str) -> Option<String> {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let asked = api.create_subresource::<Value, Value>("eviction", pod, &dry, &body).await;
    asked.err().map(|error| error.to_string())
}

/// An eviction request does not contain the pod, so the policy checks its name.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn the_policy_of_the_chart_lets_the_operator_evict_pods_of_revisions_alone() {
    let world = World::new("evict-policy").await;
    let ours = ["m-0123456789-bcdfg", "a-model-of-mine-00ffaa11cc-x2z45"];
    let theirs = [
        "database-0",
        "web-7d4b9c6f5x-x2x5z",
        "m-0123456789",
        "m-worker-0123456789-bcdfgh",
        "0123456789-bcdfg",
    ];
    for name in ours.into_iter().chain(theirs) {
        make_pod(&world, name, None, true).await;
    }
    let documents = policy();
    assert_eq!(documents.len(), 2, "the policy and its binding");
    for document in documents {
        let kind = GroupVersionKind::gvk(
            "admissionregistration.k8s.io",
            "v1",
            document["kind"].as_str().unwrap(),
        );
        let api =
            Api::<DynamicObject>::all_with(world.admin.clone(), &ApiResource::from_gvk(&kind));
        api.create(&PostParams::default(), &serde_json::from_value(document).unwrap())
            .await
            .unwrap();
    }
    let mut config = world.plane.config("admin");
    config.auth_info.impersonate = Some(ACCOUNT.to_owned());
    config.auth_info.impersonate_groups = Some(vec!["operators".to_owned()]);
    let operator = Client::try_from(config).unwrap();
    let by_name = "evicts only pods with the name of a pod of a revision";
    eventually("the policy is in force", async || {
        refusal(&operator, "evict-policy", theirs[0])
            .await
            .is_some_and(|told| told.contains(by_name))
    })
    .await;
    for name in ours {
        assert_eq!(refusal(&operator, "evict-policy", name).await, None, "{name}");
        let told = refusal(&operator, "kube-system", name).await.unwrap_or_default();
        assert!(told.contains("writes nothing in this namespace"), "{name}: {told}");
    }
    for name in theirs {
        let told = refusal(&operator, "evict-policy", name).await.unwrap_or_default();
        assert!(told.contains(by_name), "{name}: {told}");
        assert_eq!(
            refusal(&world.admin, "evict-policy", name).await,
            None,
            "{name} for somebody else"
        );
    }
}
