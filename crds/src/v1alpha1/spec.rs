//! The root of the spec.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    Analysis, Autoscaling, Cache, Feedback, Model, ModelDeploymentStatus, Queue, Sampling, Strategy, Template, Traffic,
};

fn one() -> i32 {
    1
}

fn ten() -> i32 {
    10
}

/// A model that is served at one stable address and whose versions are rolled out by evidence.
///
/// A change of `model`, `template` or `cache` makes a new revision, which starts with a small share of the traffic, is judged against the
/// running one, grows step by step, and is taken back when it is worse.
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
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stable.version", description = "Version that serves"),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.version", description = "Version that is rolled out"),
    printcolumn(name = "Weight", type_ = "string", json_path = ".status.candidate.weight", description = "Share of traffic at the candidate"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.rollout.step", description = "Step of the rollout"),
    printcolumn(name = "Verdict", type_ = "string", json_path = r#".status.conditions[?(@.type=="GatePassed")].reason"#, description = "Last verdict of the judge"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "State", type_ = "string", json_path = r#".status.conditions[?(@.type=="Progressing")].reason"#, description = "What the rollout does or waits for"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Progressing")].message"#, priority = 1),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.stable.digest", description = "Digest of the model that serves", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name: at most 40 characters, because revisions, Services and labels carry it; choose a shorter name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name: lower-case letters, digits and '-', starting with a letter, because it names the Service"),
    validation = Rule::new("!self.metadata.name.endsWith('-preview')").message("metadata.name: must not end in '-preview', which is the preview address of another ModelDeployment"),
    validation = Rule::new("!self.metadata.name.endsWith('-worker')").message("metadata.name: must not end in '-worker', which names the workers of another ModelDeployment"),
    validation = Rule::new("self.metadata.name != 'slipway-gateway'").message("metadata.name: must not be 'slipway-gateway', which names the gateway of the namespace")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.autoscaling) || !has(self.autoscaling.maxReplicas) || self.autoscaling.minReplicas <= self.autoscaling.maxReplicas").message("spec.autoscaling: minReplicas must not be greater than maxReplicas"),
    validation = Rule::new("!has(self.autoscaling) || (has(self.autoscaling.metrics) && size(self.autoscaling.metrics) > 0) || (has(self.template) && has(self.template.spec) && has(self.template.spec.containers) && self.template.spec.containers.exists(c, c.name == 'server' && has(c.resources) && ((has(c.resources.requests) && 'cpu' in c.resources.requests) || (has(c.resources.limits) && 'cpu' in c.resources.limits))))").message("spec.template.spec.containers[server].resources.requests.cpu: required by spec.autoscaling without metrics, because the default metric is a share of the CPU request")
)]
pub struct ModelDeploymentSpec {
    /// What is served.
    pub model: Model,

    /// The pods of every revision: what is given here is merged over Slipway's own. A change makes a new revision.
    #[serde(default, skip_serializing_if = "Template::is_empty")]
    pub template: Template,

    /// What the pods keep so that it need not be done again: answers, in memory and in Redis. Off when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,

    /// Replicas of the stable revision. The candidate is sized from its share of the traffic. Leave it out when `autoscaling` is set:
    /// the HorizontalPodAutoscaler writes it through the scale subresource.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,

    /// A HorizontalPodAutoscaler on this ModelDeployment's scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// Jobs: predictions that wait in a queue for a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,

    /// How a new revision takes over.
    #[serde(default)]
    pub strategy: Strategy,

    /// How traffic is split and protected.
    #[serde(default)]
    pub traffic: Traffic,

    /// What a new revision is judged by at every step.
    #[serde(default)]
    pub analysis: Analysis,

    /// What feedback may report besides labels. A change makes a new revision, because it changes the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<Feedback>,

    /// Samples of requests and answers. Off by default. A change makes a new revision, because it changes the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,

    /// Holds a rollout where it is: no step, no weight and no promotion until it is false again. An abort still works.
    #[serde(default)]
    pub paused: bool,

    /// How many old revisions (ReplicaSets scaled to 0) are kept.
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = 50))]
    pub revision_history_limit: i32,
}
