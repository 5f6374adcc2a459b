//! Changes of users and other controllers to the operator's objects.

use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeployment;

use super::support::fakes::Fakes;
use super::support::world::{World, condition, spec};
use super::support::{audit, eventually, eventually_within};
use super::{is_stable, quiet};

/// Time limit for the operator to restore a user's change.
const SOON: Duration = Duration::from_secs(10);

/// All kinds of objects, each with a change of a user and the JSON path where it shows.
const CHANGES: [(&str, &str, &str, &str, &str); 12] = [
    ("apps/v1", "Deployment", "slipway-gateway", r#"{"spec":{"replicas":0}}"#, "/spec/replicas"),
    (
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        "slipway-gateway",
        r#"{"subjects":[]}"#,
        "/subjects",
    ),
    (
        "v1",
        "ServiceAccount",
        "slipway-gateway",
        r#"{"automountServiceAccountToken":true}"#,
        "/automountServiceAccountToken",
    ),
    (
        "v1",
        "Service",
        "slipway-gateway",
        r#"{"spec":{"selector":{"app":"theirs"}}}"#,
        "/spec/selector",
    ),
    (
        "policy/v1",
        "PodDisruptionBudget",
        "slipway-gateway",
        r#"{"spec":{"maxUnavailable":0}}"#,
        "/spec/maxUnavailable",
    ),
    (
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "slipway-gateway",
        r#"{"spec":{"ingress":[{}]}}"#,
        "/spec/ingress",
    ),
    ("networking.k8s.io/v1", "NetworkPolicy", "m", r#"{"spec":{"ingress":[]}}"#, "/spec/ingress"),
    ("v1", "Service", "m", r#"{"spec":{"selector":{"app":"theirs"}}}"#, "/spec/selector"),
    (
        "v1",
        "Service",
        "m-preview",
        r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":null}}}"#,
        "/metadata/labels",
    ),
    (
        "policy/v1",
        "PodDisruptionBudget",
        "m",
        r#"{"metadata":{"annotations":{"ml.slipway.dev/applied":"x"}}}"#,
        "/metadata/annotations",
    ),
    (
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "m",
        r#"{"spec":{"maxReplicas":9}}"#,
        "/spec/maxReplicas",
    ),
    (
        "apps/v1",
        "Deployment",
        "m-worker",
        r#"{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":1}}}}"#,
        "/spec/template/spec",
    ),
];

pub(crate) fn objects(world: &World, version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::gvk(group, version, kind);
    Api::namespaced_with(world.admin.clone(), &world.namespace, &ApiResource::from_gvk(&kind))
}

fn part(object: &DynamicObject, pointer: &str) -> Value {
    serde_json::to_value(object).unwrap().pointer(pointer).cloned().unwrap_or_default()
}

async fn notes(world: &World) -> Vec<String> {
    let all = world.api::<Event>().list(&ListParams::default()).await.unwrap();
    all.into_iter()
        .filter(|it| it.reason.as_deref() == Some("ChildRestored"))
        .filter_map(|it| it.note)
        .collect()
}

fn everything() -> Value {
    let mut all = spec("v1");
    let more = json!({
        "replicas": 2, "autoscaling": {"maxReplicas": 5}, "strategy": {"type": "BlueGreen"},
        "server": {"queue": {"redis": {"url": "redis://redis:6379"}}},
        "queue": {"worker": {"autoscaling": {"maxReplicas": 4}}},
        "template": {"spec": {"containers": [
            {"name": "server", "env": [{"name": "EMPTY", "value": ""}], "resources": {"requests": {"cpu": "0.5"}}}
        ]}}
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// Regression test: a gateway that was scaled to zero, a changed selector of the stable Service,
/// and a subject removed from the RoleBinding were never restored.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn what_people_change_in_our_objects_is_put_back() {
    let world = World::new("altered").await;
    let fakes = Fakes::start(&world, 21).await;
    let [port, prometheus] = fakes.arguments();
    let operator = world.operator(&[&port, &prometheus, "--network-policies=Enabled"]);
    world.create("m", everything()).await;
    let object = world.until("stable", "m", is_stable).await.unwrap();
    let revision = object.status.unwrap().stable.unwrap().revision;
    let log = world.plane.audit_log();
    quiet(&log, &operator.user).await;
    assert!(
        notes(&world).await.is_empty(),
        "what nobody changed is as it was applied: {:?}",
        notes(&world).await
    );

    let set = format!("m-{revision}");
    let template =
        r#"{"spec":{"template":{"metadata":{"annotations":{"prometheus.io/port":"1"}}}}}"#;
    let changes = CHANGES.into_iter().chain([(
        "apps/v1",
        "ReplicaSet",
        set.as_str(),
        template,
        "/spec/template",
    )]);
    for (version, kind, name, change, pointer) in changes {
        let api = objects(&world, version, kind);
        let whole = part(&api.get(name).await.unwrap(), pointer);
        let (params, change) = (
            PatchParams { field_manager: Some("kubectl-edit".into()), ..Default::default() },
            change.parse::<Value>().unwrap(),
        );
        let changed =
            part(&api.patch(name, &params, &Patch::Merge(change)).await.unwrap(), pointer);
        assert_ne!(changed, whole, "{kind} {name}");
        let what = format!("{kind} {name} is put back");
        eventually_within(SOON, &what, async || {
            part(&api.get(name).await.unwrap(), pointer) == whole
        })
        .await;
        let told = format!("{kind} {name}");
        eventually("it is told", async || {
            notes(&world).await.iter().any(|note| note.contains(&told))
        })
        .await;
    }
    assert!(
        notes(&world)
            .await
            .iter()
            .any(|it| it.contains("spec.selector was changed by kubectl-edit")),
        "{:#?}",
        notes(&world).await
    );

    let headless = format!("m-{revision}");
    for (version, kind, name) in [
        ("v1", "Service", headless.as_str()),
        ("autoscaling/v2", "HorizontalPodAutoscaler", "m-worker"),
    ] {
        let api = objects(&world, version, kind);
        let before = api.get(name).await.unwrap().uid();
        api.delete(name, &DeleteParams::default()).await.unwrap();
        eventually_within(SOON, "it is made again", async || {
            api.get_opt(name).await.unwrap().is_some_and(|it| it.uid() != before)
        })
        .await;
        let told = format!("{kind} {name} was removed; it is made again");
        eventually("it is told", async || notes(&world).await.contains(&told)).await;
    }
    // The operator does not own what an autoscaler writes.
    let (deployments, three) = (world.api::<Deployment>(), json!({"spec": {"replicas": 3}}));
    deployments
        .patch_scale("m-worker", &PatchParams::default(), &Patch::Merge(three))
        .await
        .unwrap();
    let before = notes(&world).await.len();
    quiet(&log, &operator.user).await;
    assert_eq!(deployments.get("m-worker").await.unwrap().spec.unwrap().replicas, Some(3));
    assert_eq!(notes(&world).await.len(), before);
    operator.end().await.unwrap();
}

/// Number of an operator's writes to one object.
fn applies(world: &World, user: &str, resource: &str, name: &str) -> usize {
    let all = audit::requests(&world.plane.audit_log(), user).into_iter();
    all.filter(|it| {
        it.verb == "patch" && it.object_ref.resource == resource && it.object_ref.name == name
    })
    .count()
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn a_controller_that_reverts_us_costs_one_write_a_minute() {
    let world = World::new("contested").await;
    let fakes = Fakes::start(&world, 22).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", spec("v1")).await;
    world.until("stable", "m", is_stable).await;
    let before = applies(&world, &operator.user, "services", "m");
    let services = world.api::<Service>();
    let reverts = tokio::spawn({
        let services = services.clone();
        async move {
            let all =
                watcher(services.clone(), watcher::Config::default().fields("metadata.name=m"));
            all.default_backoff()
                .applied_objects()
                .try_for_each(|service| {
                    let services = services.clone();
                    async move {
                        let selector =
                            service.spec.and_then(|spec| spec.selector).unwrap_or_default();
                        if !selector.contains_key("app") {
                            let theirs = json!({"spec": {"selector": {"app": "theirs"}}});
                            let params = PatchParams {
                                field_manager: Some("their-controller".into()),
                                ..Default::default()
                            };
                            services.patch("m", &params, &Patch::Merge(theirs)).await.unwrap();
                        }
                        Ok(())
                    }
                })
                .await
                .unwrap();
        }
    });
    let said = |o: Option<&ModelDeployment>| condition(o, "Stalled") == "True/WriteReverted";
    let object = world.until("it is said", "m", said).await.unwrap();
    let ready =
        object.status.unwrap().conditions.into_iter().find(|c| c.type_ == "Stalled").unwrap();
    assert!(
        ready.message.contains("Service m is changed or removed by their-controller"),
        "{}",
        ready.message
    );
    // Other changes in the meantime cause no write.
    for replicas in 2..6 {
        world.merge("m", json!({"spec": {"replicas": replicas}})).await;
        let counted = |o: Option<&ModelDeployment>| {
            o.is_some_and(|o| o.status.as_ref().unwrap().replicas == replicas)
        };
        world.until("it goes on", "m", counted).await;
    }
    assert_eq!(
        applies(&world, &operator.user, "services", "m") - before,
        1,
        "it was put back once"
    );
    reverts.abort();
    let ours = |s: Option<&Service>| {
        s.is_some_and(|s| !s.spec.as_ref().unwrap().selector.as_ref().unwrap().contains_key("app"))
    };
    world.until("it is put back a minute later", "m", ours).await;
    // The server writes a line of its audit log after watches may have delivered the change.
    eventually("the log has the second write", async || {
        applies(&world, &operator.user, "services", "m") - before == 2
    })
    .await;
    operator.end().await.unwrap();
}

/// All owners of a gateway see the change, and one of them restores it.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn what_is_shared_is_put_back_once() {
    let world = World::new("shared-altered").await;
    let fakes = Fakes::start(&world, 25).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    let names: Vec<String> = (0..6).map(|n| format!("m{n}")).collect();
    for name in &names {
        world.create(name, spec("v1")).await;
    }
    for name in &names {
        world.until("stable", name, is_stable).await;
    }
    quiet(&world.plane.audit_log(), &operator.user).await;
    let before = applies(&world, &operator.user, "deployments", "slipway-gateway");
    let deployments = world.api::<Deployment>();
    let none = json!({"spec": {"replicas": 0}});
    deployments
        .patch_scale("slipway-gateway", &PatchParams::default(), &Patch::Merge(none))
        .await
        .unwrap();
    let two =
        |o: Option<&Deployment>| o.is_some_and(|o| o.spec.as_ref().unwrap().replicas == Some(2));
    world.until("it is put back", "slipway-gateway", two).await;
    quiet(&world.plane.audit_log(), &operator.user).await;
    assert_eq!(applies(&world, &operator.user, "deployments", "slipway-gateway") - before, 1);
    assert_eq!(notes(&world).await.len(), 1, "{:#?}", notes(&world).await);
    operator.end().await.unwrap();
}

/// An admission policy may change what the operator writes: the status reports it, and it causes no
/// further writes.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn an_admission_policy_that_changes_our_objects_is_told() {
    let world = World::new("admission").await;
    let of = |kind: &str, name: &str, spec: Value| -> (Api<DynamicObject>, DynamicObject) {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let mut object = DynamicObject::new(name, &ApiResource::from_gvk(&kind));
        object.data = json!({"spec": spec});
        (Api::all_with(world.admin.clone(), &ApiResource::from_gvk(&kind)), object)
    };
    let rule = json!({"apiGroups": ["policy"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["poddisruptionbudgets"]});
    let change = "Object{spec: Object.spec{maxUnavailable: 0}}";
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": "admission"}});
    let policy = of(
        "MutatingAdmissionPolicy",
        "none-away",
        json!({
            "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here}, "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}]
        }),
    );
    let binding =
        of("MutatingAdmissionPolicyBinding", "none-away", json!({"policyName": "none-away"}));
    for (api, object) in [policy, binding] {
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    // Waits until the policy is in force.
    let budgets = objects(&world, "policy/v1", "PodDisruptionBudget");
    let probe: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "probe"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "none"}}}
    }))
    .unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the policy is in force", async || {
        part(&budgets.create(&dry, &probe).await.unwrap(), "/spec/maxUnavailable") == 0
    })
    .await;

    let fakes = Fakes::start(&world, 23).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    world.create("m", spec("v1")).await;
    let told = |o: Option<&ModelDeployment>| {
        let conditions =
            o.and_then(|o| o.status.as_ref()).map(|s| s.conditions.as_slice()).unwrap_or_default();
        let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True");
        ready.is_some_and(|c| {
            c.message
                .contains("PodDisruptionBudget m: spec.maxUnavailable is changed by an admission")
        })
    };
    world.until("it is told, and the model serves", "m", told).await;
    let before = applies(&world, &operator.user, "poddisruptionbudgets", "m");
    quiet(&world.plane.audit_log(), &operator.user).await;
    assert_eq!(
        applies(&world, &operator.user, "poddisruptionbudgets", "m"),
        before,
        "it costs nothing"
    );
    operator.end().await.unwrap();
}
