//! What `spec.server.cache` adds to the pods: settings of the model server, and a Redis sidecar.

use k8s_openapi::api::core::v1::{
    Container, EnvVar, ExecAction, PersistentVolumeClaimVolumeSource, PodSecurityContext, Probe,
    ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use slipway_contracts::environment;
use slipway_crds::v1alpha1::units::quantity_bytes;
use slipway_crds::v1alpha1::{CacheBypass, CacheMode, CacheSpec, EvictionPolicy, RedisSidecar};

use crate::pod::{container_security, env_from_secret, env_var};
use crate::reserved::{MODELS_VOLUME, REDIS, SOCKET_VOLUME};
use crate::settings::PlanSettings;
use crate::volumes::{scratch_volume, volume_mount};

/// The directory that the model server and Redis share, and the socket in it.
const FOLDER: &str = "/run/slipway";
const SOCKET: &str = "/run/slipway/redis.sock";

/// CPU request of a Redis without one in its spec. Without a request the autoscaler could not
/// compute the pod's utilisation.
const CPU_REQUEST: &str = "50m";

/// The volume of the model files if it is a claim. A host path would violate the restricted Pod
/// Security Standard.
pub(crate) fn model_cache_volume(cache: Option<&CacheSpec>) -> Option<Volume> {
    let claim_name = cache?.models.as_ref()?.claim_name.clone();
    let claim = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
    Some(Volume {
        name: MODELS_VOLUME.to_owned(),
        persistent_volume_claim: Some(claim),
        ..Volume::default()
    })
}

/// Sets the group, because the root of a claim may belong to root and the pods' group must be able
/// to write. Kubernetes checks only the root of the volume, because a walk through many files at
/// every start is slow.
pub(crate) fn cache_pod_security(
    cache: Option<&CacheSpec>,
    pod: PodSecurityContext,
) -> PodSecurityContext {
    let claimed = cache.is_some_and(|cache| cache.models.is_some());
    PodSecurityContext {
        fs_group: if claimed { pod.run_as_group } else { None },
        fs_group_change_policy: claimed.then(|| "OnRootMismatch".to_owned()),
        ..pod
    }
}

/// The volume of the socket, and where both containers mount it; `None` without the sidecar.
pub(crate) fn socket_volume(cache: Option<&CacheSpec>) -> Option<(Volume, VolumeMount)> {
    cache?
        .sidecar
        .as_ref()
        .map(|_| (scratch_volume(SOCKET_VOLUME, "16Mi"), volume_mount(SOCKET_VOLUME, FOLDER)))
}

/// The environment of the model server for its caches.
pub(crate) fn cache_environment(cache: Option<&CacheSpec>) -> Vec<EnvVar> {
    let Some(cache) = cache else { return Vec::new() };
    let mut all = Vec::new();
    if let Some(results) =
        cache.results.as_ref().filter(|results| results.mode == CacheMode::Enabled)
    {
        all.extend([
            env_var(environment::RESULT_CACHE, "true"),
            env_var(environment::RESULT_CACHE_BYTES, &quantity_bytes_text(&results.memory)),
            env_var(environment::RESULT_CACHE_TTL_SECONDS, &results.ttl_seconds.to_string()),
            env_var(
                environment::RESULT_CACHE_MAX_ENTRY_BYTES,
                &quantity_bytes_text(&results.max_entry_size),
            ),
        ]);
        if results.hot_keys > 0 {
            all.push(env_var(environment::CACHE_HOT_KEYS, &results.hot_keys.to_string()));
        }
        if results.bypass == CacheBypass::Never {
            all.push(env_var(environment::CACHE_NO_BYPASS, "true"));
        }
    }
    if let Some(features) =
        cache.features.as_ref().filter(|features| features.mode == CacheMode::Enabled)
    {
        all.extend([
            env_var(environment::FEATURE_CACHE, "true"),
            env_var(environment::FEATURE_CACHE_BYTES, &quantity_bytes_text(&features.memory)),
            env_var(environment::FEATURE_TTL_SECONDS, &features.ttl_seconds.to_string()),
        ]);
        if let Some(source) = &features.source {
            all.push(env_var(environment::FEATURE_SOURCE_URL, &source.url));
            all.push(env_var(
                environment::FEATURE_SOURCE_TIMEOUT_MS,
                &source.timeout_milliseconds.to_string(),
            ));
        }
    }
    if let Some(url) = redis_url(cache).filter(|_| !all.is_empty()) {
        all.push(url);
        all.push(env_var(
            environment::REDIS_BUDGET_MS,
            &cache.latency_budget_milliseconds.to_string(),
        ));
    }
    all
}

/// Validation rejects invalid amounts earlier; 0 disables the memory.
fn quantity_bytes_text(amount: &Quantity) -> String {
    quantity_bytes(amount).unwrap_or_default().to_string()
}

fn redis_url(cache: &CacheSpec) -> Option<EnvVar> {
    const NAME: &str = environment::REDIS_URL;
    if cache.sidecar.is_some() {
        return Some(env_var(NAME, &format!("unix://{SOCKET}")));
    }
    let external = cache.redis.as_ref()?;
    if let Some(secret) = &external.url_secret_key_ref {
        return Some(env_from_secret(NAME, secret));
    }
    external.url.as_deref().map(|url| env_var(NAME, url))
}

/// The Redis sidecar: an init container with restart policy Always, so that it starts before the
/// model server and terminates after it.
///
/// It deliberately has neither a startup nor a readiness probe: a Redis that does not start must
/// not prevent the pod from serving without it.
pub(crate) fn redis_sidecar(
    cache: Option<&CacheSpec>,
    settings: &PlanSettings,
) -> Option<Container> {
    let redis = cache?.sidecar.as_ref()?;
    Some(Container {
        name: REDIS.to_owned(),
        image: Some(redis.image.clone().unwrap_or_else(|| settings.redis_image.clone())),
        // For the user's own image Kubernetes' default by tag applies, as the user expects.
        image_pull_policy: redis.image.is_none().then(|| settings.image_pull_policy.clone()),
        restart_policy: Some("Always".to_owned()),
        args: Some(redis_arguments(redis)),
        liveness_probe: Some(redis_liveness()),
        resources: Some(redis_resources(redis)),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![volume_mount(SOCKET_VOLUME, FOLDER)]),
        ..Container::default()
    })
}

/// No TCP port, nothing on disk, and a limit for the memory.
fn redis_arguments(redis: &RedisSidecar) -> Vec<String> {
    let policy = match redis.eviction_policy {
        EvictionPolicy::AllKeysLfu => "allkeys-lfu",
        EvictionPolicy::AllKeysLru => "allkeys-lru",
        EvictionPolicy::VolatileTtl => "volatile-ttl",
    };
    let memory = quantity_bytes_text(&redis.max_memory);
    let pairs = [
        ("--port", "0"),
        ("--unixsocket", SOCKET),
        ("--unixsocketperm", "700"),
        ("--dir", FOLDER),
        ("--save", ""),
        ("--appendonly", "no"),
        ("--maxclients", "64"),
        ("--maxmemory", &memory),
        ("--maxmemory-policy", policy),
        // Freeing large values in the background keeps other lookups short.
        ("--lazyfree-lazy-eviction", "yes"),
        ("--lazyfree-lazy-expire", "yes"),
    ];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
}

fn redis_liveness() -> Probe {
    let command = ["redis-cli", "-s", SOCKET, "ping"].map(str::to_owned).to_vec();
    Probe {
        exec: Some(ExecAction { command: Some(command) }),
        period_seconds: Some(10),
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

/// Memory: the maximum for data, plus a quarter and 32 MiB for buffers, fragmentation and Redis
/// itself. All of it is requested, because a cache becomes full sooner or later.
fn redis_resources(redis: &RedisSidecar) -> ResourceRequirements {
    let kept = quantity_bytes(&redis.max_memory).unwrap_or_default();
    let kept = kept / (1 << 20) + i64::from(kept % (1 << 20) > 0);
    let memory = Quantity(format!("{}Mi", kept + kept / 4 + 32));
    let mut resources = redis.resources.clone().unwrap_or_default();
    resources.limits.get_or_insert_default().insert("memory".to_owned(), memory.clone());
    let limited = resources.limits.as_ref().is_some_and(|limits| limits.contains_key("cpu"));
    let requests = resources.requests.get_or_insert_default();
    requests.insert("memory".to_owned(), memory);
    if !limited {
        requests.entry("cpu".to_owned()).or_insert_with(|| Quantity(CPU_REQUEST.to_owned()));
    }
    resources
}
