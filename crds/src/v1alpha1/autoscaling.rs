//! Number of pods: autoscaling and disruptions.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

fn one_replica() -> i32 {
    1
}

/// A HorizontalPodAutoscaler (autoscaling/v2) that targets this ModelDeployment's scale
/// subresource.
///
/// Its metrics cover the pods of all revisions, so that the number it requests matches the whole
/// traffic, also during a rollout.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingSpec {
    /// Minimum number of replicas.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,

    /// Maximum number of replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,

    /// Metrics of autoscaling/v2. Default: CPU utilisation of 80 % in the container `server` (type
    /// ContainerResource).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub metrics: Vec<MetricSpec>,

    /// Behaviour of autoscaling/v2: how fast the HorizontalPodAutoscaler scales up and down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

/// The PodDisruptionBudget over the pods of all revisions.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    /// Number of pods that may be evicted at a time: a number, or a percentage of all pods
    /// (`"25%"`), rounded up. A pod that is not ready may always be evicted.
    #[serde(default = "one_pod")]
    #[schemars(extend("minimum" = 0, "maximum" = 1000, "pattern" = "^(100|[0-9]{1,2})%$"))]
    pub max_unavailable: IntOrString,
}

fn one_pod() -> IntOrString {
    IntOrString::Int(1)
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self { max_unavailable: one_pod() }
    }
}
