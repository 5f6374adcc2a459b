//! The effects of `spec.server.cache` on the pods.

use k8s_openapi::api::core::v1::VolumeMount;

use super::*;

fn cached(cache: Value) -> ModelDeployment {
    let mut object = minimal();
    object.spec.server.cache = Some(serde_json::from_value(cache).unwrap());
    object
}

fn has_redis(object: &ModelDeployment) -> bool {
    pods(object)
        .remove(0)
        .init_containers
        .unwrap()
        .iter()
        .any(|container| container.name == "redis")
}

#[test]
fn the_redis_sidecar_keeps_within_its_memory_and_never_holds_up_the_pod() {
    let object = cached(json!({"results": {}, "sidecar": {"maxMemory": "100Mi"}}));
    let pod = pods(&object).remove(0);
    let redis = pod.init_containers.unwrap().into_iter().find(|it| it.name == "redis").unwrap();
    assert_eq!(redis.image.as_deref(), Some("registry.example/slipway-redis:1"));
    assert_eq!(redis.restart_policy.as_deref(), Some("Always"), "a sidecar");
    assert!(
        redis.startup_probe.is_none()
            && redis.readiness_probe.is_none()
            && redis.liveness_probe.is_some()
    );
    let args = redis.args.unwrap();
    let argument =
        |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1).map(String::as_str);
    assert_eq!(
        (argument("--maxmemory"), argument("--maxmemory-policy")),
        (Some("104857600"), Some("allkeys-lfu"))
    );
    assert_eq!((argument("--port"), argument("--save")), (Some("0"), Some("")));
    let resources = redis.resources.unwrap();
    assert_eq!(resources.limits.unwrap()["memory"].0, "157Mi");
    assert_eq!(
        resources.requests.unwrap()["cpu"].0,
        "50m",
        "or the autoscaler could not tell the utilisation"
    );

    let container = runtime(&object);
    let env = container.env.unwrap();
    let socket = argument("--unixsocket").unwrap();
    assert_eq!(value(&env, "SLIPWAY_REDIS_URL"), Some(format!("unix://{socket}")));
    let folder = |mounts: Option<Vec<VolumeMount>>| {
        mounts.unwrap().into_iter().find(|m| m.name == "redis").unwrap()
    };
    let (theirs, ours) = (folder(redis.volume_mounts), folder(container.volume_mounts));
    assert!(theirs == ours && socket.starts_with(&ours.mount_path));
    assert!(
        pod.volumes
            .unwrap()
            .iter()
            .any(|volume| volume.name == "redis" && volume.empty_dir.is_some())
    );
}

#[test]
fn a_redis_of_the_users_own_takes_the_place_of_the_sidecar() {
    let object = cached(
        json!({"results": {"ttlSeconds": 60, "bypass": "Never", "hotKeys": 100}, "redis": {"url": "redis://redis.shop:6379/1"}}),
    );
    assert!(!has_redis(&object));
    let env = runtime(&object).env.unwrap();
    assert_eq!(value(&env, "SLIPWAY_REDIS_URL").as_deref(), Some("redis://redis.shop:6379/1"));
    assert_eq!(value(&env, "SLIPWAY_RESULT_CACHE_TTL_SECONDS").as_deref(), Some("60"));
    assert_eq!(value(&env, "SLIPWAY_CACHE_HOT_KEYS").as_deref(), Some("100"));
    assert_eq!(value(&env, "SLIPWAY_CACHE_NO_BYPASS").as_deref(), Some("true"));
    assert_eq!(value(&env, "SLIPWAY_RESULT_CACHE_BYTES").as_deref(), Some("67108864"));

    let object = cached(
        json!({"results": {}, "redis": {"urlSecretKeyRef": {"name": "redis", "key": "url"}}}),
    );
    let env = runtime(&object).env.unwrap();
    let url = env.iter().find(|variable| variable.name == "SLIPWAY_REDIS_URL").unwrap();
    let reference = url.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap();
    assert_eq!((reference.name.as_str(), reference.key.as_str()), ("redis", "url"));
}

#[test]
fn feature_rows_are_kept_with_or_without_results() {
    let source = json!({"url": "http://store.shop/rows/{entity}", "timeoutMilliseconds": 50});
    let object = cached(json!({"features": {"ttlSeconds": 60, "source": source}, "sidecar": {}}));
    let env = runtime(&object).env.unwrap();
    assert_eq!(value(&env, "SLIPWAY_FEATURE_CACHE").as_deref(), Some("true"));
    assert_eq!(
        value(&env, "SLIPWAY_FEATURE_SOURCE_URL").as_deref(),
        Some("http://store.shop/rows/{entity}")
    );
    assert_eq!(value(&env, "SLIPWAY_FEATURE_SOURCE_TIMEOUT_MS").as_deref(), Some("50"));
    assert_eq!(value(&env, "SLIPWAY_RESULT_CACHE"), None);
    assert!(value(&env, "SLIPWAY_REDIS_URL").is_some());
}

#[test]
fn model_files_may_outlive_the_pod_in_a_claim() {
    let object = cached(json!({"models": {"claimName": "model-cache"}}));
    let pod = pods(&object).remove(0);
    let security = pod.security_context.unwrap();
    assert_eq!(
        (security.fs_group, security.fs_group_change_policy.as_deref()),
        (Some(65532), Some("OnRootMismatch"))
    );
    let volumes = pod.volumes.unwrap();
    let models: Vec<_> = volumes.iter().filter(|volume| volume.name == "models").collect();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0].persistent_volume_claim.as_ref().unwrap().claim_name, "model-cache");
    let mount = runtime(&object)
        .volume_mounts
        .unwrap()
        .into_iter()
        .find(|mount| mount.name == "models")
        .unwrap();
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/models", None));
    assert_eq!(pods(&minimal()).remove(0).security_context.unwrap().fs_group, None);
}

#[test]
fn without_a_cache_nothing_of_it_is_in_the_pods() {
    for object in [minimal(), cached(json!({"results": {"mode": "Disabled"}}))] {
        assert!(
            runtime(&object).env.unwrap().iter().all(|variable| !variable.name.contains("CACHE"))
        );
        assert!(!has_redis(&object));
    }
}
