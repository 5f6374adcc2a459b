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
/// The workers are a Deployment `<name>-worker` of the stable revision: a new revision's workers
/// take over when it is promoted, the candidate has none. Changes here reach the workers when the
/// spec's revision is the stable one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// Jobs that may be queued or running before others are refused with 429.
    #[serde(default = "default_jobs")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_jobs: i64,

    /// How often a job is handed to a worker before it goes to the dead-letter stream.
    #[serde(default = "default_deliveries")]
    #[schemars(range(min = 1, max = 100))]
    pub max_deliveries: i32,

    /// How long results can be read.
    #[serde(default = "a_day")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub result_ttl_seconds: i32,

    /// Callbacks with results. Without it jobs with a callback are refused.
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

/// Where a queue of jobs (`POST /v2/models/<model>/jobs`) is kept: on a Redis or NATS that is there
/// already.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.redis) != has(self.nats)").message("spec.server.queue: give exactly one of redis and nats, which keeps the queue")
)]
pub struct QueueStore {
    /// The Redis that keeps the queue, on its streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<QueueRedis>,

    /// The NATS that keeps the queue, on JetStream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<QueueNats>,
}

/// A Redis 7 or Valkey 7.2, or newer, with an append-only file and without eviction: it keeps what
/// must not be lost.
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

    /// A Secret that holds the URL, as `redis://user:password@host:port`.
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

    /// A Secret that holds the URL, as `nats://user:password@host:port` or
    /// `nats://token@host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_key_ref: Option<SecretKeyRef>,

    /// Servers that keep the stream of the queue, when it is not there yet and made by us. With
    /// one, a lost disk is a lost queue.
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

    /// Key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// POSTs of results to the URLs that jobs name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.allow.all(a, a.matches('^([*]|([*]?[.])?[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?|[0-9A-Fa-f.:]+(/[0-9]{1,3})?)$'))").message("spec.queue.callbacks.allow: each is a host name, .suffix, address, network/prefix, or * for any public address")
)]
pub struct CallbackSpec {
    /// Where callbacks may go: host names, `.suffix`, networks, or `*`. Addresses that are not
    /// public need a network.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub allow: Vec<String>,

    /// What callbacks are signed with: one or several keys, separated by spaces.
    pub signing_key_secret_key_ref: SecretKeyRef,
}

/// The pods that run jobs. They are made from `spec.template`; what is given here takes the place
/// of what is there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.autoscaling) || self.autoscaling.minReplicas <= self.autoscaling.maxReplicas").message("spec.queue.worker.autoscaling: minReplicas must not be greater than maxReplicas")
)]
pub struct WorkerSpec {
    /// Workers, unless `autoscaling` is set.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,

    /// Workers by how many jobs wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<WorkerAutoscaling>,

    /// Jobs that one worker takes at once; their rows are merged into batches.
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 256))]
    pub max_batch_jobs: i32,

    /// How long a worker that is told to end goes on with what it has before it gives that back.
    /// Nodes that are taken away on short notice leave 30 s or less; the pod's grace period is
    /// this and 10 s.
    #[serde(default = "default_drain")]
    #[schemars(range(min = 0, max = 600))]
    pub drain_seconds: i32,

    /// Resources of one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Nodes that may run the workers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the workers bear, for example of spot nodes.
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
/// label `modeldeployment`; see docs/queue.md for the rule of prometheus-adapter that serves it,
/// and for KEDA instead. While nobody serves the metric, the workers stay as many as they are.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkerAutoscaling {
    /// Fewest workers.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,

    /// Most workers.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,

    /// Jobs in the queue for each worker.
    #[serde(default = "default_target")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_jobs: i32,

    /// Behaviour of autoscaling/v2: how fast it goes up and down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}
