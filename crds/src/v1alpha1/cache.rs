//! Caches of the model server. All of these fields are part of the revision, because they change
//! the pods.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretKeyRef;
use super::units::MEMORY;

fn two_milliseconds() -> i32 {
    2
}

fn five_minutes() -> i32 {
    300
}

fn one_hour() -> i32 {
    3600
}

fn half_a_second() -> i32 {
    500
}

fn default_memory() -> Quantity {
    Quantity("64Mi".to_owned())
}

fn default_entry_size() -> Quantity {
    Quantity("1Mi".to_owned())
}

/// Caches of the model server. No cache can fail a request: if Redis is unavailable, requests are
/// answered without it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.sidecar) && has(self.redis))").message("spec.server.cache.redis: a Redis of your own takes the place of the sidecar; leave out spec.server.cache.sidecar or this"),
    validation = Rule::new("!(has(self.sidecar) || has(self.redis)) || (has(self.results) && self.results.mode == 'Enabled') || (has(self.features) && self.features.mode == 'Enabled')").message("spec.server.cache: nothing would use the Redis; add results or features, or leave sidecar and redis out"),
    validation = Rule::new("!has(self.features) || self.features.mode != 'Enabled' || has(self.features.source) || has(self.redis)").message("spec.server.cache.features: what is written to one pod must be found by the others; add spec.server.cache.redis, or a source that every pod can ask")
)]
pub struct CacheSpec {
    /// Cache of answers by input. Only for models that always return the same answer to the same
    /// input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultCacheSpec>,

    /// Cache of input rows by entity: the server completes a request that names an entity with the
    /// row of that entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureCacheSpec>,

    /// A Redis container in every pod, as a second level behind the pod's own memory. The gateway
    /// sends equal requests to the same pod, so that the caches of all pods together work as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<RedisSidecar>,

    /// A Redis of your own instead of one in every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<CacheRedis>,

    /// A volume that keeps model files beyond the lifetime of a pod. Without it, each pod keeps
    /// its own files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<ModelCacheSpec>,

    /// Longest time in milliseconds that one request waits for Redis before it continues without.
    #[serde(default = "two_milliseconds")]
    #[schemars(range(min = 1, max = 1000))]
    pub latency_budget_milliseconds: i32,
}

/// Settings of the result cache.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResultCacheSpec {
    /// Enabled (default): answers are cached. Disabled: they are not.
    #[serde(default)]
    pub mode: CacheMode,

    /// Age in seconds at which an answer expires.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub ttl_seconds: i32,

    /// Largest answer that is cached, by the size of its tensors; at most 64Mi.
    #[serde(default = "default_entry_size")]
    #[schemars(extend("minimum" = 1, "maximum" = 67_108_864, "pattern" = MEMORY))]
    pub max_entry_size: Quantity,

    /// Memory of the model server for cached answers, at most 64Gi; it counts towards the limits
    /// of the container `server`. 0 keeps answers in Redis only.
    #[serde(default = "default_memory")]
    #[schemars(extend("minimum" = 0, "pattern" = MEMORY))]
    pub memory: Quantity,

    /// What happens when lookups cost more time than they save. Adaptive (default): requests
    /// bypass the cache, except one in sixteen, which continues to measure the benefit. Never:
    /// every request uses the cache.
    #[serde(default)]
    pub bypass: CacheBypass,

    /// Number of the most requested inputs that a new pod predicts before it becomes ready, so
    /// that a promotion does not start with an empty cache. Pods then keep these inputs and serve
    /// them on their admin port (9090) to every client that can reach it. 0: none.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1024))]
    pub hot_keys: i32,
}

/// Settings of the feature cache. Rows are written by `PUT /v2/models/<model>/features/<entity>`,
/// and by cache misses that the source answers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FeatureCacheSpec {
    /// Enabled (default): rows are cached. Disabled: they are not.
    #[serde(default)]
    pub mode: CacheMode,

    /// Age in seconds at which a row expires.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub ttl_seconds: i32,

    /// Memory of the model server for cached rows, at most 64Gi.
    #[serde(default = "default_memory")]
    #[schemars(extend("minimum" = 0, "pattern" = MEMORY))]
    pub memory: Quantity,

    /// Source of the rows that are not in the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<FeatureSource>,
}

/// A feature source: an HTTP server that answers `GET` with the row of an entity, `{"<input>": <its
/// row>}`, or 404.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.url.matches('^https?://[A-Za-z0-9][-.A-Za-z0-9]*(:[0-9]{1,5})?/[^ ]*[{]entity[}][^ ]*$')").message("spec.server.cache.features.source.url: is http(s)://host/path with {entity} in the path or query, and without credentials; only that host is ever asked")
)]
pub struct FeatureSource {
    /// URL of the source, with `{entity}` in place of the percent-encoded entity. Redirects are
    /// not followed.
    #[schemars(length(min = 8, max = 1024))]
    pub url: String,

    /// Timeout of a request to the source, in milliseconds.
    #[serde(default = "half_a_second")]
    #[schemars(range(min = 1, max = 30_000))]
    pub timeout_milliseconds: i32,
}

/// Whether a cache is used.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// The cache is used.
    #[default]
    Enabled,
    /// The cache is not used.
    Disabled,
}

/// What happens when lookups cost more time than they save.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheBypass {
    /// Requests bypass the cache, except one in sixteen, which continues to measure the benefit.
    #[default]
    Adaptive,
    /// Every request uses the cache.
    Never,
}

/// The cache of model files, addressed by their digest. Pods of all revisions may share it: files
/// appear atomically, and their digest is verified again before use.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelCacheSpec {
    /// PersistentVolumeClaim of this namespace that all pods mount for writing: ReadWriteMany, or
    /// ReadWriteOnce if all pods run on one node.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub claim_name: String,
}

/// The Redis container in a pod: without persistence, reached by a socket that only the pod's
/// containers can access.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.resources) || ((!has(self.resources.limits) || !('memory' in self.resources.limits)) && (!has(self.resources.requests) || !('memory' in self.resources.requests)))").message("spec.server.cache.sidecar.resources: memory follows from maxMemory, with room for what Redis needs besides; set that instead")
)]
pub struct RedisSidecar {
    /// Image with `redis-server` as its entrypoint and `redis-cli`. Default: the image in the
    /// operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// Memory for cached data, from 8Mi to 64Gi. The memory limit of the container is a quarter
    /// higher, plus 32Mi.
    #[serde(default = "default_memory")]
    #[schemars(extend("minimum" = 8_388_608, "pattern" = MEMORY))]
    pub max_memory: Quantity,

    /// Which entries are evicted when the memory is full. AllKeysLfu (default): the least
    /// frequently used. AllKeysLru: the least recently used. VolatileTtl: those that expire
    /// soonest.
    #[serde(default)]
    pub eviction_policy: EvictionPolicy,

    /// Resources of the container except memory. Default: a request of 50m CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// Which entries are evicted when the memory is full.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// The least frequently used.
    #[default]
    AllKeysLfu,
    /// The least recently used.
    AllKeysLru,
    /// Those that expire soonest.
    VolatileTtl,
}

/// A Redis that the user operates. Several ModelDeployments may share it: every key includes the
/// digest of the model.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.urlSecretKeyRef)").message("spec.server.cache.redis: needs one of url and urlSecretKeyRef"),
    validation = Rule::new("!has(self.url) || self.url.matches('^rediss?://[A-Za-z0-9][-.A-Za-z0-9]*(:[0-9]{1,5})?(/[0-9]{1,5})?$')").message("spec.server.cache.redis.url: is redis://host[:port][/db], or rediss:// for TLS; an address with a password goes into a Secret, named by urlSecretKeyRef")
)]
pub struct CacheRedis {
    /// URL of the Redis, `redis://host[:port][/db]`, or `rediss://` for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512))]
    pub url: Option<String>,

    /// Key of a Secret of this namespace that contains the URL,
    /// `redis[s]://user:password@host:port/db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_key_ref: Option<SecretKeyRef>,
}
