//! The autoscaler and the disruption budget of the model's pods.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use slipway_crds::v1alpha1::{AutoscalingSpec, ModelDeployment, SERVER_CONTAINER};

use crate::desired::DesiredObject;
use crate::hash::with_applied_hash;
use crate::meta::{LabelMap, controlled_metadata, label_selector, object_labels, runtime_selector};

/// Target of the default metric: average CPU utilisation of the pods, in percent of their requests.
const DEFAULT_CPU_PERCENT: i32 = 80;

/// The HorizontalPodAutoscaler `<name>` for `autoscaling` (from the spec). It targets the scale
/// subresource of the ModelDeployment, whose selector covers all revisions and does not change
/// during a rollout, so the target of the autoscaler never changes.
pub fn model_autoscaler(object: &ModelDeployment, autoscaling: &AutoscalingSpec) -> DesiredObject {
    let name = object.name_any();
    let metrics = if autoscaling.metrics.is_empty() {
        vec![cpu_utilisation()]
    } else {
        autoscaling.metrics.clone()
    };
    with_applied_hash(DesiredObject::HorizontalPodAutoscaler(HorizontalPodAutoscaler {
        metadata: controlled_metadata(object, name.clone(), object_labels(&name)),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(ModelDeployment::api_version(&()).into_owned()),
                kind: ModelDeployment::kind(&()).into_owned(),
                name,
            },
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(metrics),
            behavior: autoscaling.behavior.clone(),
        }),
        status: None,
    }))
}

/// CPU utilisation of the model server's container only: a metric of the whole pod is unavailable
/// as soon as one other container requests no CPU.
fn cpu_utilisation() -> MetricSpec {
    MetricSpec {
        type_: "ContainerResource".to_owned(),
        container_resource: Some(ContainerResourceMetricSource {
            container: SERVER_CONTAINER.to_owned(),
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(DEFAULT_CPU_PERCENT),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

/// The PodDisruptionBudget `<name>` over the runtime pods of all revisions.
///
/// Kubernetes sums the replicas of the ReplicaSets behind the pods, so `disruptionBudget` applies
/// to the whole ModelDeployment.
pub fn disruption_budget(object: &ModelDeployment) -> DesiredObject {
    let name = object.name_any();
    let metadata = controlled_metadata(object, name.clone(), object_labels(&name));
    with_applied_hash(DesiredObject::PodDisruptionBudget(eviction_budget(
        metadata,
        runtime_selector(&name),
        object.spec.disruption_budget.max_unavailable.clone(),
    )))
}

/// A budget of `max_unavailable` evictions at a time. A pod that is not ready may always be
/// evicted: it serves no requests, and must not block the drain of a node.
pub(crate) fn eviction_budget(
    metadata: ObjectMeta,
    selector: LabelMap,
    max_unavailable: IntOrString,
) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata,
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(max_unavailable),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            selector: Some(label_selector(selector)),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
