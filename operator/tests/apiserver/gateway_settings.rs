//! Gateway settings that an administrator sets in the annotation of a namespace.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeployment;

use super::support::eventually;
use super::support::fakes::Fakes;
use super::support::world::{World, condition, spec};
use super::{is_stable, quiet};

const GATEWAY: &str = "slipway-gateway";

async fn say(world: &World, settings: Option<&str>) {
    let change = json!({"metadata": {"annotations": {"ml.slipway.dev/gateway": settings}}});
    let api = Api::<Namespace>::all(world.admin.clone());
    api.patch(&world.namespace, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

async fn deployment(world: &World) -> Deployment {
    world.api::<Deployment>().get(GATEWAY).await.unwrap()
}

/// Scales the gateway as an autoscaler does.
async fn scale(world: &World, replicas: i32) {
    let change = json!({"spec": {"replicas": replicas}});
    let params = PatchParams { field_manager: Some("autoscaler".into()), ..PatchParams::default() };
    world.api::<Deployment>().patch_scale(GATEWAY, &params, &Patch::Merge(change)).await.unwrap();
}

fn replicas(count: i32) -> impl Fn(Option<&Deployment>) -> bool {
    move |it| it.is_some_and(|it| it.spec.as_ref().unwrap().replicas == Some(count))
}

/// Field managers of the replica count.
fn managers(deployment: &Deployment) -> Vec<String> {
    let all = deployment.metadata.managed_fields.iter().flatten();
    let of_replicas = all.filter(|it| {
        it.fields_v1.as_ref().is_some_and(|fields| fields.0["f:spec"]["f:replicas"] != Value::Null)
    });
    of_replicas.filter_map(|it| it.manager.clone()).collect()
}

fn says(world: &World, reason: &str) -> impl AsyncFn() -> bool {
    let (api, reason) = (world.api::<ModelDeployment>(), reason.to_owned());
    async move || {
        condition(api.get_opt("m").await.unwrap().as_ref(), "GatewayOutdated").contains(&reason)
    }
}

/// The replica count never falls while its ownership passes from the operator to an autoscaler, and
/// it has no other owner before and after.
#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn the_number_of_a_gateways_pods_passes_to_an_autoscaler_and_back() {
    let world = World::new("gateway-settings").await;
    let fakes = Fakes::start(&world, 33).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    say(&world, Some("replicas: 4")).await;
    world.create("m", spec("v1")).await;
    world.until("stable", "m", is_stable).await;
    assert_eq!(deployment(&world).await.spec.unwrap().replicas, Some(4), "as the namespace says");

    // Until now a change by another client is reverted.
    scale(&world, 1).await;
    world.until("it is put back", GATEWAY, replicas(4)).await;

    // An API server resets a field that no manager applies any more to its default, 1.
    let fell =
        |it: Option<&Deployment>| it.is_some_and(|it| it.spec.as_ref().unwrap().replicas < Some(4));
    let fallen = tokio::spawn(await_condition(world.api::<Deployment>(), GATEWAY, fell));
    say(&world, Some("replicas: 4\nautoscaling: { mode: External }\n")).await;
    eventually("it is handed over", async || {
        managers(&deployment(&world).await) == ["slipway-handover"]
    })
    .await;
    assert_eq!(deployment(&world).await.spec.unwrap().replicas, Some(4));
    scale(&world, 9).await;
    quiet(&world.plane.audit_log(), &operator.user).await;
    // A later change of other settings takes nothing back.
    let labelled =
        "autoscaling: { mode: External }\ntemplate: { metadata: { labels: { team: ml } } }\n";
    say(&world, Some(labelled)).await;
    let has_label = |it: Option<&Deployment>| {
        let labels = it.and_then(|it| it.spec.as_ref()?.template.metadata.as_ref()?.labels.clone());
        labels.is_some_and(|labels| labels.contains_key("team"))
    };
    let labelled = world.until("labelled", GATEWAY, has_label).await.unwrap();
    assert_eq!(
        (labelled.spec.as_ref().unwrap().replicas, managers(&labelled)),
        (Some(9), vec!["autoscaler".into()])
    );
    assert!(!fallen.is_finished(), "the number of pods fell");
    fallen.abort();

    // Then an autoscaler of the operator's own, and no autoscaler again.
    say(&world, Some("autoscaling: { mode: Enabled, minReplicas: 3, targetAverageCpu: 1500m }"))
        .await;
    let made = |it: Option<&HorizontalPodAutoscaler>| it.is_some();
    let autoscaler = world.until("an autoscaler", GATEWAY, made).await.unwrap().spec.unwrap();
    assert_eq!((autoscaler.min_replicas, autoscaler.max_replicas), (Some(3), 10));
    assert_eq!(
        (autoscaler.scale_target_ref.kind, autoscaler.scale_target_ref.name),
        ("Deployment".into(), GATEWAY.into())
    );
    say(&world, None).await;
    world.until("the number of the chart", GATEWAY, replicas(2)).await;
    world
        .until("no autoscaler", GATEWAY, |it: Option<&HorizontalPodAutoscaler>| it.is_none())
        .await;
    operator.end().await.unwrap();
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn settings_that_cannot_be_read_change_nothing_and_are_told() {
    let world = World::new("gateway-settings-wrong").await;
    let fakes = Fakes::start(&world, 34).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    say(&world, Some("replicas: 5")).await;
    world.create("m", spec("v1")).await;
    world.until("stable", "m", is_stable).await;
    let before = deployment(&world).await;
    say(&world, Some("replicas: five")).await;
    eventually("it is told", says(&world, "InvalidGatewaySettings")).await;
    quiet(&world.plane.audit_log(), &operator.user).await;
    assert_eq!(deployment(&world).await.metadata.generation, before.metadata.generation);
    let object = world.api::<ModelDeployment>().get("m").await.unwrap();
    assert!(condition(Some(&object), "Ready").starts_with("True"));
    // An operator that starts now does not know the earlier settings.
    operator.end().await.unwrap();
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    eventually("it leads", async || operator.readiness().await.contains("leading")).await;
    quiet(&world.plane.audit_log(), &operator.user).await;
    assert_eq!(deployment(&world).await.metadata.generation, before.metadata.generation);
    say(&world, Some("replicas: 6")).await;
    world.until("mended", GATEWAY, replicas(6)).await;
    let mended = async || {
        condition(
            world.api::<ModelDeployment>().get_opt("m").await.unwrap().as_ref(),
            "GatewayOutdated",
        )
        .is_empty()
    };
    eventually("it is told no more", mended).await;
    operator.end().await.unwrap();
}
