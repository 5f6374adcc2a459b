//! The root of the spec.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    AnalysisSpec, AutoscalingSpec, DisruptionBudget, FeedbackSpec, ModelDeploymentStatus,
    ModelServerSpec, ModelSpec, PodTemplatePatch, QueueSpec, QueueStore, RolloutStrategy,
    TrafficSpec,
};

fn default_history_limit() -> i32 {
    10
}

/// A model that is served at one stable address, and whose new versions are rolled out based on
/// evidence.
///
/// A change of `model`, `server` or `template` creates a new revision. It starts with a small share
/// of the traffic, is judged against the running revision, gets more traffic step by step, and is
/// rolled back if it is worse. Changes of all other fields take effect at once and start no
/// rollout.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "ml.slipway.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    plural = "modeldeployments",
    singular = "modeldeployment",
    shortname = "mdep",
    category = "ml",
    namespaced,
    derive = "PartialEq",
    status = "ModelDeploymentStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether the stable version serves"),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stable.version", description = "Version that serves"),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.version", description = "Version that is rolled out"),
    printcolumn(name = "Weight", type_ = "string", json_path = ".status.candidate.weight", description = "Share of the traffic that the candidate gets"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "What is wrong, or what the rollout does or waits for"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.rollout.step", description = "Step of the rollout", priority = 1),
    printcolumn(name = "Verdict", type_ = "string", json_path = r#".status.conditions[?(@.type=="GatePassed")].reason"#, description = "Last verdict of the judge", priority = 1),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.stable.readyReplicas", description = "Pods of the stable version that are ready", priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", description = "Where clients inside the cluster reach the model", priority = 1),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.stable.digest", description = "Digest of the model that serves", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", description = "What the state means, with numbers", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name: at most 40 characters, because revisions, Services and labels carry it; choose a shorter name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name: lower-case letters, digits and '-', starting with a letter, because it names the Service"),
    validation = Rule::new("!self.metadata.name.endsWith('-preview')").message("metadata.name: must not end in '-preview', which is the preview address of another ModelDeployment"),
    validation = Rule::new("!self.metadata.name.endsWith('-worker')").message("metadata.name: must not end in '-worker', which names the workers of another ModelDeployment"),
    validation = Rule::new("self.metadata.name != 'slipway-gateway'").message("metadata.name: must not be 'slipway-gateway', which names the gateway of the namespace"),
    validation = Rule::new("(has(self.spec.model.name) ? self.spec.model.name : self.metadata.name) == (has(oldSelf.spec.model.name) ? oldSelf.spec.model.name : oldSelf.metadata.name)").message("spec.model.name: cannot change, because clients ask for the model by it; make another ModelDeployment, and move clients to it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.queue) || (has(self.server) && has(self.server.queue))").message("spec.queue: bounds of a queue that is not there; say in spec.server.queue which Redis or NATS keeps it"),
    validation = Rule::new("!has(self.autoscaling) || !has(self.autoscaling.maxReplicas) || self.autoscaling.minReplicas <= self.autoscaling.maxReplicas").message("spec.autoscaling: minReplicas must not be greater than maxReplicas"),
    validation = Rule::new("!has(self.autoscaling) || (has(self.autoscaling.metrics) && size(self.autoscaling.metrics) > 0) || (has(self.template) && has(self.template.spec) && has(self.template.spec.containers) && self.template.spec.containers.exists(c, c.name == 'server' && has(c.resources) && ((has(c.resources.requests) && 'cpu' in c.resources.requests) || (has(c.resources.limits) && 'cpu' in c.resources.limits))))").message("spec.template.spec.containers[server].resources.requests.cpu: required by spec.autoscaling without metrics, because the default metric is a share of the CPU request")
)]
pub struct ModelDeploymentSpec {
    /// The model to serve. A change creates a new revision.
    pub model: ModelSpec,

    /// The pods of every revision: these fields are merged over the operator's pod template. A
    /// change creates a new revision.
    #[serde(default, skip_serializing_if = "PodTemplatePatch::is_empty")]
    pub template: PodTemplatePatch,

    /// Settings of the model server. A change creates a new revision.
    #[serde(default, skip_serializing_if = "ModelServerSpec::is_empty")]
    pub server: ModelServerSpec,

    /// Replicas of the stable revision. The candidate is sized by its share of the traffic. Leave
    /// this field out when `autoscaling` is set: the HorizontalPodAutoscaler writes it through the
    /// scale subresource. If absent, the current number of replicas stays, and is at least
    /// `autoscaling.minReplicas`; a new ModelDeployment gets 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,

    /// Number of pods that may be evicted at a time, for example when nodes are drained.
    #[serde(default)]
    pub disruption_budget: DisruptionBudget,

    /// A HorizontalPodAutoscaler on the scale subresource of this ModelDeployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,

    /// Bounds and workers of the queue in `server.queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueSpec>,

    /// How a new revision replaces the stable one.
    #[serde(default)]
    pub strategy: RolloutStrategy,

    /// How traffic is split and protected.
    #[serde(default)]
    pub traffic: TrafficSpec,

    /// How a new revision is judged at every step.
    #[serde(default)]
    pub analysis: AnalysisSpec,

    /// What feedback may report besides labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<FeedbackSpec>,

    /// Pods created before this time are replaced by eviction, one at a time: the next one when
    /// all pods are ready. Set it to the current time to replace all pods, for example after a
    /// Secret was rotated; new pods get the images of the operator's current configuration. The
    /// restart waits for a time in the future and for the end of a rollout. When all pods are
    /// replaced, `status.restartedTime` has the same value. Not part of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_time: Option<Time>,

    /// Pauses a rollout at its current step: no further step, weight or promotion until it is
    /// false again. An abort still takes effect.
    #[serde(default)]
    pub paused: bool,

    /// Number of old revisions (ReplicaSets scaled to 0) to keep.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 0, max = 50))]
    pub revision_history_limit: i32,
}

impl ModelDeploymentSpec {
    /// The queue: its store, and its bounds and workers; `None` if there is no queue.
    pub fn queue(&self) -> Option<(&QueueStore, QueueSpec)> {
        Some((self.server.queue.as_ref()?, self.queue.clone().unwrap_or_default()))
    }
}
