//! What is kept so that it need not be done again. All of this makes the revision, as it changes
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

/// Caches of the model server. None of them can fail a request: without Redis, requests are
/// answered without it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.sidecar) && has(self.redis))").message("spec.server.cache.redis: a Redis of your own takes the place of the sidecar; leave out spec.server.cache.sidecar or this"),
    validation = Rule::new("!(has(self.sidecar) || has(self.redis)) || (has(self.results) && self.results.mode == 'Enabled') || (has(self.features) && self.features.mode == 'Enabled')").message("spec.server.cache: nothing would use the Redis; add results or features, or leave sidecar and redis out"),
    validation = Rule::new("!has(self.features) || self.features.mode != 'Enabled' || has(self.features.source) || has(self.redis)").message("spec.server.cache.features: what is written to one pod must be found by the others; add spec.server.cache.redis, or a source that every pod can ask")
)]
pub struct CacheSpec {
    /// Answers to inputs that were seen before. Only for models that always give the same answer
    /// to the same input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultCacheSpec>,

    /// Rows of inputs by entity: a request that names an entity is filled with its row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureCacheSpec>,

    /// A Redis beside every pod, behind the pod's own memory. The gateway sends equal requests to
    /// the same pod, so that together they are one cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<RedisSidecar>,

    /// A Redis of your own instead of one beside every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<CacheRedis>,

    /// A volume that keeps model files beyond the life of a pod. Without it, each pod keeps its
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<ModelCacheSpec>,

    /// Longest time in milliseconds that one request waits for Redis before it goes on without.
    #[serde(default = "two_milliseconds")]
    #[schemars(range(min = 1, max = 1000))]
    pub latency_budget_milliseconds: i32,
}

/// The result cache.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResultCacheSpec {
    /// Enabled (default): answers are kept. Disabled: none are.
    #[serde(default)]
    pub mode: CacheMode,

    /// Age in seconds at which an answer is not used any more.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub ttl_seconds: i32,

    /// Largest answer that is kept, by its tensors; at most 64Mi.
    #[serde(default = "default_entry_size")]
    #[schemars(extend("minimum" = 1, "maximum" = 67_108_864, "pattern" = MEMORY))]
    pub max_entry_size: Quantity,

    /// Memory of the model server that answers may take, at most 64Gi; it is part of what the
    /// limits of the container `server` bound. 0 keeps them in Redis only.
    #[serde(default = "default_memory")]
    #[schemars(extend("minimum" = 0, "pattern" = MEMORY))]
    pub memory: Quantity,

    /// What happens where looking up costs more than it saves. Adaptive (default): requests go
    /// past the cache, all but a sixteenth by which its worth is measured on. Never: every request
    /// looks.
    #[serde(default)]
    pub bypass: CacheBypass,

    /// How many of the most asked inputs a new pod answers before it is ready, so that a promotion
    /// does not begin with an empty cache. Pods then remember these inputs and tell them on their
    /// admin port (9090), to whoever can reach it. 0: none.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1024))]
    pub hot_keys: i32,
}

/// The feature cache. Rows are written by `PUT /v2/models/<model>/features/<entity>`, and by misses
/// that the source answers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FeatureCacheSpec {
    /// Enabled (default): rows are kept. Disabled: none are.
    #[serde(default)]
    pub mode: CacheMode,

    /// Age in seconds at which a row is not used any more.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub ttl_seconds: i32,

    /// Memory of the model server that rows may take, at most 64Gi.
    #[serde(default = "default_memory")]
    #[schemars(extend("minimum" = 0, "pattern" = MEMORY))]
    pub memory: Quantity,

    /// Who is asked for a row that nobody has written.
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
    /// Its address with `{entity}` where the entity stands, percent-encoded. Redirects are not
    /// followed.
    #[schemars(length(min = 8, max = 1024))]
    pub url: String,

    /// Longest time for its answer, in milliseconds.
    #[serde(default = "half_a_second")]
    #[schemars(range(min = 1, max = 30_000))]
    pub timeout_milliseconds: i32,
}

/// Whether something is kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// It is.
    #[default]
    Enabled,
    /// It is not.
    Disabled,
}

/// What happens where looking up costs more than it saves.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheBypass {
    /// Requests go past the cache, all but a sixteenth by which its worth is measured on.
    #[default]
    Adaptive,
    /// Every request looks.
    Never,
}

/// The cache of model files, addressed by their digest. Pods of all revisions may share it: files
/// appear whole or not at all, and are hashed again before use.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelCacheSpec {
    /// PersistentVolumeClaim of this namespace that all pods mount for writing: ReadWriteMany, or
    /// ReadWriteOnce where one node runs them all.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub claim_name: String,
}

/// The Redis beside a pod: no persistence, reached by a socket that only the pod's containers see.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.resources) || ((!has(self.resources.limits) || !('memory' in self.resources.limits)) && (!has(self.resources.requests) || !('memory' in self.resources.requests)))").message("spec.server.cache.sidecar.resources: memory follows from maxMemory, with room for what Redis needs besides; set that instead")
)]
pub struct RedisSidecar {
    /// Image with `redis-server` as its entrypoint and `redis-cli`. Default: the one that came
    /// with the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// Memory for what is kept, from 8Mi to 64Gi. The container's limit is a quarter and 32Mi
    /// more.
    #[serde(default = "default_memory")]
    #[schemars(extend("minimum" = 8_388_608, "pattern" = MEMORY))]
    pub max_memory: Quantity,

    /// What goes when the memory is full. AllKeysLfu (default): what is used least often.
    /// AllKeysLru: what was used longest ago. VolatileTtl: what ends soonest.
    #[serde(default)]
    pub eviction_policy: EvictionPolicy,

    /// Resources of the container but for memory. Default: a request of 50m CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// What goes when the memory is full.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// What is used least often.
    #[default]
    AllKeysLfu,
    /// What was used longest ago.
    AllKeysLru,
    /// What ends soonest.
    VolatileTtl,
}

/// A Redis of the user's own. Several ModelDeployments may share it: every key covers the digest of
/// the model.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.urlSecretKeyRef)").message("spec.server.cache.redis: needs one of url and urlSecretKeyRef"),
    validation = Rule::new("!has(self.url) || self.url.matches('^rediss?://[A-Za-z0-9][-.A-Za-z0-9]*(:[0-9]{1,5})?(/[0-9]{1,5})?$')").message("spec.server.cache.redis.url: is redis://host[:port][/db], or rediss:// for TLS; an address with a password goes into a Secret, named by urlSecretKeyRef")
)]
pub struct CacheRedis {
    /// Its address, `redis://host[:port][/db]`, or `rediss://` for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512))]
    pub url: Option<String>,

    /// Key of a Secret of this namespace that holds its address,
    /// `redis[s]://user:password@host:port/db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_key_ref: Option<SecretKeyRef>,
}
