//! The autoscaler writes replicas through the scale subresource: up under load, also in the middle
//! of a canary, and down afterwards.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use slipway_crds::v1alpha1::{AutoscalingSpec, ModelDeployment};
use slipway_e2e::world::{self, TestWorld};

/// A target of twenty millicores per pod is soon exceeded, and scaling is fast in both directions.
fn autoscaled(world: &TestWorld, file: &str) -> anyhow::Result<ModelDeployment> {
    let mut object = world.quick_example(file)?;
    let quick = HPAScalingRules {
        stabilization_window_seconds: Some(0),
        policies: Some(vec![HPAScalingPolicy {
            type_: "Pods".into(),
            value: 4,
            period_seconds: 15,
        }]),
        ..HPAScalingRules::default()
    };
    let target = MetricTarget {
        type_: "AverageValue".into(),
        average_value: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity("30m".into())),
        ..MetricTarget::default()
    };
    object.spec.autoscaling = Some(AutoscalingSpec {
        min_replicas: 1,
        max_replicas: 3,
        metrics: vec![MetricSpec {
            type_: "Resource".into(),
            resource: Some(ResourceMetricSource { name: "cpu".into(), target }),
            ..MetricSpec::default()
        }],
        behavior: Some(HorizontalPodAutoscalerBehavior {
            scale_down: Some(quick.clone()),
            scale_up: Some(quick),
        }),
    });
    // `replicas` is absent, as in a user's manifest: it belongs to the autoscaler.
    Ok(object)
}

/// Applies without `replicas`, as the documentation recommends.
async fn apply_without_replicas(world: &TestWorld, object: &ModelDeployment) -> anyhow::Result<()> {
    let mut json = serde_json::to_value(object)?;
    if let Some(spec) = json["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    world.cluster.apply(&world.namespace, &json.to_string()).await?;
    Ok(())
}

async fn until_replicas(
    world: &TestWorld,
    what: &str,
    wanted: impl Fn(i32) -> bool,
) -> anyhow::Result<()> {
    let look = || async {
        let object =
            world.model_deployments().get("digits").await.map_err(|error| error.to_string())?;
        let ready = object
            .status
            .as_ref()
            .and_then(|status| status.stable.as_ref())
            .map_or(0, |stable| stable.ready_replicas);
        let asked = object.spec.replicas.unwrap_or_default();
        match wanted(asked) && wanted(ready) {
            true => Ok(()),
            false => Err(format!("spec.replicas {asked}, ready {ready}")),
        }
    };
    Ok(world.cluster.wait_for(&world.namespace, what, Duration::from_secs(240), look).await?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn hpa_scales() -> anyhow::Result<()> {
    world::run_promise_alone("hpa-scales", async |world| {
        apply_without_replicas(&world, &autoscaled(&world, "digits/v1.yaml")?).await?;
        world
            .wait_for_status(
                "digits",
                "the first version to be ready",
                world::PODS_TIMEOUT,
                world::check_ready,
            )
            .await?;
        world.start_load("digits", 300).await?;
        until_replicas(&world, "more replicas under load", |replicas| replicas >= 2).await?;

        // A canary during the load: the autoscaler keeps scaling, without conflicts over replicas.
        let mut second = autoscaled(&world, "digits/v2.yaml")?;
        // On a machine that is loaded on purpose, latency is no evidence about the model.
        second.spec.analysis.gates = second
            .spec
            .analysis
            .gates
            .map(|gates| gates.into_iter().filter(|gate| gate.name != "latency").collect());
        apply_without_replicas(&world, &second).await?;
        world.wait_promoted("digits", "v2").await?;
        until_replicas(&world, "replicas after the canary", |replicas| replicas >= 2).await?;
        world.finish_load().await?;
        until_replicas(&world, "fewer replicas after the load", |replicas| replicas == 1).await
    })
    .await
}
