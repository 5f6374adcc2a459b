//! The environment of pods for the job queue.

use k8s_openapi::api::core::v1::EnvVar;
use kube::ResourceExt;
use slipway_contracts::environment;
use slipway_crds::v1alpha1::{ModelDeployment, QueueSpec, QueueStore};

use crate::pod::{env_from_secret, env_var};

/// The environment for the queue that serving pods and workers need.
pub(crate) fn queue_environment(
    object: &ModelDeployment,
    store: &QueueStore,
    queue: &QueueSpec,
) -> Vec<EnvVar> {
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let place = match (&store.redis, &store.nats) {
        (Some(redis), _) => (&redis.url, &redis.url_secret_key_ref),
        (None, Some(nats)) => (&nats.url, &nats.url_secret_key_ref),
        // The schema rejects this.
        (None, None) => return Vec::new(),
    };
    let url = match place {
        (Some(url), _) => env_var(environment::QUEUE_URL, url),
        (None, Some(secret)) => env_from_secret(environment::QUEUE_URL, secret),
        (None, None) => return Vec::new(),
    };
    let replicas = store
        .nats
        .as_ref()
        .map(|nats| env_var(environment::QUEUE_REPLICAS, &nats.replicas.to_string()));
    let mut all = vec![url];
    all.extend(replicas);
    all.extend([
        env_var(environment::QUEUE_NAME, &name),
        env_var(environment::QUEUE_MAX_JOBS, &queue.max_jobs.to_string()),
        env_var(environment::JOB_MAX_DELIVERIES, &queue.max_deliveries.to_string()),
        env_var(environment::JOB_RESULT_TTL_SECONDS, &queue.result_ttl_seconds.to_string()),
    ]);
    all.extend(
        queue
            .callbacks
            .as_ref()
            .map(|it| env_var(environment::CALLBACK_ALLOW, &it.allow.join(","))),
    );
    all
}
