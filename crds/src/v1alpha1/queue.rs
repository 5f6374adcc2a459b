//! Jobs: predictions that wait in a queue for a worker.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

fn one_replica() -> i32 {
    1
}

fn default_deliveries() -> i32 {
    3
}

fn default_jobs() -> i64 {
    10_000
}

fn a_day() -> i32 {
    24 * 3600
}

fn default_batch() -> i32 {
    32
}

fn default_target() -> i32 {
    100
}

fn default_drain() -> i32 {
    15
}

/// Bounds and workers of the queue that `spec.server.queue` names. A change takes effect at once
/// and starts no rollout.
///
/// The workers are a Deployment `<name>-worker` of the stable revision. The workers of a new
/// revision take over when it is promoted; a candidate has none. Changes here reach the workers
/// once the revision of the spec is the stable one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// Number of jobs that may be queued or running; further jobs are rejected with 429.
    #[serde(default = "default_jobs")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_jobs: i64,

    /// Number of times that a job is delivered to a worker before it goes to the dead-letter
    /// stream.
    #[serde(default = "default_deliveries")]
    #[schemars(range(min = 1, max = 100))]
    pub max_deliveries: i32,

    /// How long results can be read, in seconds.
    #[serde(default = "a_day")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub result_ttl_seconds: i32,

    /// Callbacks with results. Without this field jobs with a callback are rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callbacks: Option<CallbackSpec>,

    /// The pods that run the jobs.
    #[serde(default)]
    pub worker: WorkerSpec,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            max_jobs: default_jobs(),
            max_deliveries: default_deliveries(),
            result_ttl_seconds: a_day(),
            callbacks: None,
            worker: WorkerSpec::default(),
        }
    }
}

/// Store of the queue of jobs (`POST /v2/models/<model>/jobs`): an existing Redis or NATS.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.redis) != has(self.nats)").message("spec.server.queue: give exactly one of redis and nats, which keeps the queue")
)]
pub struct QueueStore {
    /// The Redis that stores the queue, in its streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<QueueRedis>,

    /// The NATS that stores the queue, in JetStream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<QueueNats>,
}

/// A Redis 7 or Valkey 7.2, or newer, with an append-only file and without eviction, because the
/// queue must not be lost.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.urlSecretKeyRef)").message("spec.server.queue.redis: give exactly one of url and urlSecretKeyRef"),
    validation = Rule::new("!has(self.url) || self.url.matches('^rediss?://[^@ ]+$')").message("spec.server.queue.redis.url: must be redis://host:port or rediss://host:port, without a password; one with a password goes into a Secret, see urlSecretKeyRef")
)]
pub struct QueueRedis {
    /// `redis://host[:port][/db]`, or `rediss://` for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 512))]
    pub url: Option<String>,

    /// A Secret that contains the URL, as `redis://user:password@host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_key_ref: Option<SecretKeyRef>,
}

/// A NATS server 2.12 or newer, or a cluster of them, with JetStream.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.urlSecretKeyRef)").message("spec.server.queue.nats: give exactly one of url and urlSecretKeyRef"),
    validation = Rule::new("!has(self.url) || self.url.matches('^(nats|tls)://[^@ ]+$')").message("spec.server.queue.nats.url: must be nats://host:port or tls://host:port, without a password or token; one with it goes into a Secret, see urlSecretKeyRef")
)]
pub struct QueueNats {
    /// `nats://host[:port]`, or `tls://`; several servers separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512))]
    pub url: Option<String>,

    /// A Secret that contains the URL, as `nats://user:password@host:port` or
    /// `nats://token@host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_key_ref: Option<SecretKeyRef>,

    /// Number of servers that store the stream of the queue, if Slipway creates it. With one
    /// server, losing its disk loses the queue.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: i32,
}

/// A key of a Secret in the namespace of the ModelDeployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// POST requests with results to the URLs that jobs name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.allow.all(a, a.matches('^([*]|([*]?[.])?[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?|[0-9A-Fa-f.:]+(/[0-9]{1,3})?)$'))").message("spec.queue.callbacks.allow: each is a host name, .suffix, address, network/prefix, or * for any public address")
)]
pub struct CallbackSpec {
    /// Allowed targets of callbacks: host names, `.suffix`, networks, or `*`. Addresses that are
    /// not public need a network.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub allow: Vec<String>,

    /// Keys that sign callbacks: one or several, separated by spaces.
    pub signing_key_secret_key_ref: SecretKeyRef,
}

/// The pods that run jobs. They are created from `spec.template`; fields that are set here replace
/// those of the template.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.autoscaling) || self.autoscaling.minReplicas <= self.autoscaling.maxReplicas").message("spec.queue.worker.autoscaling: minReplicas must not be greater than maxReplicas")
)]
pub struct WorkerSpec {
    /// Number of workers, unless `autoscaling` is set.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,

    /// Scales the workers by the number of waiting jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<WorkerAutoscaling>,

    /// Number of jobs that one worker takes at once; their rows are merged into batches.
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 256))]
    pub max_batch_jobs: i32,

    /// How long a terminating worker continues with its jobs before it returns them to the queue,
    /// in seconds. Spot nodes that are reclaimed leave 30 s or less; the pod's grace period is
    /// this value plus 10 s.
    #[serde(default = "default_drain")]
    #[schemars(range(min = 0, max = 600))]
    pub drain_seconds: i32,

    /// Resources of one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Labels of the nodes that may run the workers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the workers tolerate, for example of spot nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tolerations: Vec<Toleration>,

    /// Affinity of the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
}

impl Default for WorkerSpec {
    fn default() -> Self {
        Self {
            replicas: one_replica(),
            autoscaling: None,
            max_batch_jobs: default_batch(),
            drain_seconds: default_drain(),
            resources: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
        }
    }
}

/// A HorizontalPodAutoscaler `<name>-worker` by the External metric `slipway_queue_jobs` with the
/// label `modeldeployment`. See docs/queue.md for the rule of prometheus-adapter that serves the
/// metric, and for KEDA as an alternative. While the metric is not available, the number of workers
/// does not change.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkerAutoscaling {
    /// Minimum number of workers.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,

    /// Maximum number of workers.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,

    /// Number of queued jobs for each worker.
    #[serde(default = "default_target")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_jobs: i32,

    /// Behaviour of autoscaling/v2: how fast the HorizontalPodAutoscaler scales up and down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}
