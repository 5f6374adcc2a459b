use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, VolumeMount};
use serde_json::{Value, json};
use slipway_crds::labels;
use slipway_crds::v1alpha1::{Batching, ModelDeployment, Queue};

use super::*;
use crate::action::{APPLIED, Desired};
use crate::observed::{ObjectView, Settings};

const UID: &str = "5f2d8a3e-0000-4000-8000-000000000001";
const REVISION: &str = "0123456789";

fn full() -> ModelDeployment {
    serde_yaml::from_str(include_str!("testdata/modeldeployment.yaml")).unwrap()
}

fn minimal() -> ModelDeployment {
    serde_yaml::from_str(
        "
        apiVersion: ml.slipway.dev/v1alpha1
        kind: ModelDeployment
        metadata: { name: digits, namespace: lab, uid: aaaaaaaa-0000-4000-8000-000000000002 }
        spec: { model: { uri: 'http://store/digits.onnx' } }
        ",
    )
    .unwrap()
}

fn settings() -> Settings {
    Settings {
        gateway_image: "registry.example/slipway-gateway:1".to_owned(),
        gateway_replicas: 2,
        runtime_image: "registry.example/slipway-runtime:1".to_owned(),
        redis_image: "registry.example/slipway-redis:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        image_pull_secrets: vec!["registry".to_owned()],
        tracing: None,
    }
}

/// Every object of one ModelDeployment, in no particular order but always the same.
fn all(object: &ModelDeployment) -> Vec<Desired> {
    let mut all = vec![
        replica_set(object, &settings(), REVISION, "v7", 3),
        revision_service(object, REVISION),
        stable_service(object),
        preview_service(object),
        disruption_budget(object),
    ];
    all.extend(object.spec.autoscaling.as_ref().map(|autoscaling| autoscaler(object, autoscaling)));
    all.extend(object.spec.queue.iter().flat_map(|queue| {
        let autoscaler = queue.worker.autoscaling.as_ref().map(|it| worker_autoscaler(object, it));
        [Some(worker_deployment(object, queue, &settings(), REVISION, "v7", "")), autoscaler].into_iter().flatten()
    }));
    all.extend(gateway_set(object, &settings()));
    all
}

fn json_of(desired: &Desired) -> Value {
    let value = match desired {
        Desired::ReplicaSet(object) => serde_json::to_value(object),
        Desired::Service(object) => serde_json::to_value(object),
        Desired::HorizontalPodAutoscaler(object) => serde_json::to_value(object),
        Desired::PodDisruptionBudget(object) => serde_json::to_value(object),
        Desired::ServiceAccount(object) => serde_json::to_value(object),
        Desired::RoleBinding(object) => serde_json::to_value(object),
        Desired::Deployment(object) => serde_json::to_value(object),
    };
    value.unwrap()
}

fn pods(object: &ModelDeployment) -> Vec<PodSpec> {
    let replica_set = replica_set(object, &settings(), REVISION, "v7", 3);
    let gateway = gateway_deployment(object, &settings());
    let (Desired::ReplicaSet(replica_set), Desired::Deployment(gateway)) = (replica_set, gateway) else {
        panic!("other kinds");
    };
    let of_runtime = replica_set.spec.unwrap().template.unwrap().spec.unwrap();
    let mut pods = vec![of_runtime, gateway.spec.unwrap().template.spec.unwrap()];
    pods.extend(object.spec.queue.iter().map(|queue| worker(object, queue).template.spec.unwrap()));
    pods
}

fn worker(object: &ModelDeployment, queue: &Queue) -> DeploymentSpec {
    let Desired::Deployment(it) = worker_deployment(object, queue, &settings(), REVISION, "v7", "") else { panic!() };
    it.spec.unwrap()
}

fn runtime(object: &ModelDeployment) -> Container {
    pods(object).remove(0).containers.remove(0)
}

#[test]
fn golden() {
    let yaml = |desired: &Desired| serde_yaml::to_string(&json_of(desired)).unwrap();
    let objects: Vec<String> = all(&full()).iter().map(yaml).collect();
    let now = format!("# Written by the test `build::tests::golden`; do not edit.\n{}", objects.join("---\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/build/testdata/golden.yaml");
    if std::fs::read_to_string(path).ok().as_deref() != Some(now.as_str()) {
        std::fs::write(path, now).unwrap();
        panic!("the objects changed; {path} was rewritten: look at the difference and commit it");
    }
}

#[test]
fn names_and_labels_are_those_of_the_map() {
    let kind_and_name = |desired: &Desired| {
        let value = json_of(desired);
        format!("{}/{}", value["kind"].as_str().unwrap(), value["metadata"]["name"].as_str().unwrap())
    };
    let names: Vec<String> = all(&full()).iter().map(kind_and_name).collect();
    assert_eq!(
        names,
        [
            "ReplicaSet/churn-0123456789",
            "Service/churn-0123456789",
            "Service/churn",
            "Service/churn-preview",
            "PodDisruptionBudget/churn",
            "HorizontalPodAutoscaler/churn",
            "Deployment/churn-worker",
            "HorizontalPodAutoscaler/churn-worker",
            "ServiceAccount/slipway-gateway",
            "RoleBinding/slipway-gateway",
            "Deployment/slipway-gateway",
            "PodDisruptionBudget/slipway-gateway",
        ]
    );
    for desired in all(&full()) {
        let value = json_of(&desired);
        let labels = &value["metadata"]["labels"];
        let gateway = value["metadata"]["name"] == json!(GATEWAY);
        assert_eq!(labels[labels::MANAGED_BY], labels::MANAGER);
        let worker = value["metadata"]["name"] == json!("churn-worker");
        let component = if gateway {
            "gateway"
        } else if worker {
            "worker"
        } else {
            "runtime"
        };
        assert_eq!(labels[labels::COMPONENT], component);
        assert_eq!(labels[labels::PART_OF], if gateway { GATEWAY } else { "churn" });
        assert_eq!(labels[labels::MODEL_DEPLOYMENT], if gateway { Value::Null } else { json!("churn") });
        let of_revision = value["metadata"]["name"] == json!("churn-0123456789");
        assert_eq!(labels[labels::REVISION], if of_revision { json!(REVISION) } else { Value::Null });
        assert_eq!(value["metadata"]["namespace"], "shop");
        let owner = &value["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], UID);
        assert_eq!(owner["controller"], if gateway { Value::Null } else { json!(true) });
    }
}

#[test]
fn selectors_select_what_they_shall() {
    let Desired::ReplicaSet(set) = replica_set(&full(), &settings(), REVISION, "v7", 3) else { panic!() };
    let spec = set.spec.unwrap();
    let pod_labels = spec.template.unwrap().metadata.unwrap().labels.unwrap();
    let selected = |value: &Value| {
        value.as_object().unwrap().iter().all(|(k, v)| pod_labels.get(k).map(String::as_str) == v.as_str())
    };
    assert!(selected(&serde_json::to_value(spec.selector.match_labels.unwrap()).unwrap()));
    assert!(selected(&json_of(&revision_service(&full(), REVISION))["spec"]["selector"]));
    assert!(selected(&json_of(&disruption_budget(&full()))["spec"]["selector"]["matchLabels"]));
    assert!(!selected(&json_of(&revision_service(&full(), "other"))["spec"]["selector"]));

    let gateway = json_of(&gateway_deployment(&full(), &settings()));
    let gateway_pods = gateway["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
    for service in [stable_service(&full()), preview_service(&full())] {
        let selector = json_of(&service)["spec"]["selector"].clone();
        assert!(selector.as_object().unwrap().iter().all(|(k, v)| gateway_pods.get(k) == Some(v)));
        assert!(!selected(&selector), "the stable address must not reach runtime pods past the gateway");
    }
}

#[test]
fn pods_meet_the_restricted_standard() {
    for pod in pods(&full()) {
        let of_pod = pod.security_context.unwrap();
        assert_eq!(of_pod.run_as_non_root, Some(true));
        assert_eq!(of_pod.run_as_user, Some(65532));
        assert_eq!(of_pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
        assert!(pod.host_network.is_none() && pod.host_pid.is_none() && pod.host_ipc.is_none());
        for container in pod.containers.into_iter().chain(pod.init_containers.into_iter().flatten()) {
            let of_container = container.security_context.unwrap();
            assert_eq!(of_container.allow_privilege_escalation, Some(false));
            assert_eq!(of_container.read_only_root_filesystem, Some(true));
            assert_eq!(of_container.capabilities.unwrap().drop.unwrap(), ["ALL"]);
            assert!(container.ports.unwrap_or_default().iter().all(|port| port.host_port.is_none()));
        }
    }
}

#[test]
fn the_revision_in_the_environment_cannot_be_forged() {
    let env = runtime(&full()).env.unwrap();
    let values = |name: &str| env.iter().filter(|e| e.name == name).map(|e| e.value.clone()).collect::<Vec<_>>();
    assert_eq!(values("SLIPWAY_REVISION"), [Some(REVISION.to_owned())]);
    assert_eq!(values("SLIPWAY_MODEL_NAME"), [Some("churn-model".to_owned())]);
    assert_eq!(values("AWS_REGION"), [Some("eu-central-1".to_owned())]);
}

#[test]
fn workers_are_pods_that_nobody_is_sent_to() {
    let object = full();
    let queue = object.spec.queue.clone().unwrap();
    let spec = worker(&object, &queue);
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    let selected = |selector: &Value| {
        selector.as_object().unwrap().iter().all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str())
    };
    assert!(selected(&serde_json::to_value(spec.selector.match_labels.unwrap()).unwrap()));
    for selector in [
        &json_of(&revision_service(&object, REVISION))["spec"]["selector"],
        &json_of(&stable_service(&object))["spec"]["selector"],
        &json_of(&disruption_budget(&object))["spec"]["selector"]["matchLabels"],
    ] {
        assert!(!selected(selector), "{selector}");
    }
    let in_scale = |part: &str| part.split_once('=').is_some_and(|(k, v)| labels.get(k).map(String::as_str) == Some(v));
    let scale = labels::scale_selector("churn");
    assert!(!scale.split(',').all(in_scale), "workers are no replicas");
    assert_eq!(spec.replicas, None, "the autoscaler's");

    let mut pod = spec.template.spec.unwrap();
    assert_eq!(pod.termination_grace_period_seconds, Some(25), "within the notice of a spot node");
    assert_eq!(pod.node_selector.unwrap()["pool"], "spot");
    let container = pod.containers.remove(0);
    assert_eq!(container.args.unwrap(), ["worker", "--threads=2"]);
    let env = container.env.unwrap();
    let secret = |name: &str| {
        let found = env.iter().find(|e| e.name == name).unwrap();
        let of = found.value_from.clone().unwrap().secret_key_ref.unwrap();
        format!("{}/{}", of.name, of.key)
    };
    assert_eq!(secret("SLIPWAY_QUEUE_URL"), "redis/url");
    assert_eq!(secret("SLIPWAY_CALLBACK_SIGNING_KEY"), "callbacks/hmac");
    assert!(env.iter().any(|e| e.name == "SLIPWAY_QUEUE_NAME" && e.value.as_deref() == Some("shop/churn")));
    let served = runtime(&object).env.unwrap();
    assert!(served.iter().all(|e| e.name != "SLIPWAY_CALLBACK_SIGNING_KEY"), "who serves signs nothing");
    assert!(served.iter().any(|e| e.name == "SLIPWAY_CALLBACK_ALLOW"));
    let fixed = Queue { worker: slipway_crds::v1alpha1::Worker { replicas: 3, ..Default::default() }, ..queue };
    assert_eq!(worker(&object, &fixed).replicas, Some(3));
    assert!(!is_shared(&worker_deployment(&object, &fixed, &settings(), REVISION, "v7", "")));
}

#[test]
fn defaults_of_a_minimal_object() {
    let pod = pods(&minimal()).remove(0);
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.volumes.unwrap().len(), 2);
    let container = runtime(&minimal());
    assert_eq!(container.image.as_deref(), Some("registry.example/slipway-runtime:1"));
    assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
    let requests = container.resources.unwrap().requests.unwrap();
    assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("100m", "128Mi"));
    let env = container.env.unwrap();
    assert!(env.iter().any(|e| e.name == "SLIPWAY_MODEL_NAME" && e.value.as_deref() == Some("digits")));
    assert!(env.iter().any(|e| e.name == "SLIPWAY_MODEL_DIGEST" && e.value.as_deref() == Some("")));
}

#[test]
fn what_the_user_names_is_taken() {
    let mut object = minimal();
    object.spec.runtime.image = Some("mine:7".to_owned());
    object.spec.runtime.service_account_name = Some("store-reader".to_owned());
    let container = runtime(&object);
    assert_eq!(container.image.as_deref(), Some("mine:7"));
    assert_eq!(container.image_pull_policy, None, "Kubernetes' default by tag");
    let pod = pods(&object).remove(0);
    assert_eq!(pod.service_account_name.as_deref(), Some("store-reader"));
    assert_eq!(pod.automount_service_account_token, None, "the account decides");
    // A limit without a request is the request: Kubernetes says so, and adding another would break Guaranteed pods.
    let requests = runtime(&full()).resources.unwrap().requests.unwrap();
    assert!(!requests.contains_key("memory") && requests.contains_key("cpu"));
}

#[test]
fn a_claim_is_mounted_read_only() {
    let pod = pods(&full()).remove(0);
    let volume = pod.volumes.unwrap().into_iter().find_map(|v| v.persistent_volume_claim).unwrap();
    assert_eq!((volume.claim_name.as_str(), volume.read_only), ("models", Some(true)));
    let mounts = runtime(&full()).volume_mounts.unwrap();
    let mount = mounts.iter().find(|m| m.name == "claim").unwrap();
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/mnt/models/models", Some(true)));
}

fn value(env: &[EnvVar], name: &str) -> Option<String> {
    env.iter().find(|variable| variable.name == name).and_then(|variable| variable.value.clone())
}

fn cached(cache: Value) -> ModelDeployment {
    let mut object = minimal();
    object.spec.cache = Some(serde_json::from_value(cache).unwrap());
    object
}

fn has_redis(object: &ModelDeployment) -> bool {
    pods(object).remove(0).init_containers.unwrap().iter().any(|container| container.name == "redis")
}

#[test]
fn the_redis_sidecar_keeps_within_its_memory_and_never_holds_up_the_pod() {
    let object = cached(json!({"results": {}, "redis": {"maxMemoryMebibytes": 100}}));
    let pod = pods(&object).remove(0);
    let redis = pod.init_containers.unwrap().into_iter().find(|it| it.name == "redis").unwrap();
    assert_eq!(redis.image.as_deref(), Some("registry.example/slipway-redis:1"));
    assert_eq!(redis.restart_policy.as_deref(), Some("Always"), "a sidecar");
    assert!(redis.startup_probe.is_none() && redis.readiness_probe.is_none() && redis.liveness_probe.is_some());
    let args = redis.args.unwrap();
    let argument = |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1).map(String::as_str);
    assert_eq!((argument("--maxmemory"), argument("--maxmemory-policy")), (Some("100mb"), Some("allkeys-lfu")));
    assert_eq!((argument("--port"), argument("--save")), (Some("0"), Some("")));
    let resources = redis.resources.unwrap();
    assert_eq!(resources.limits.unwrap()["memory"].0, "157Mi");
    assert_eq!(resources.requests.unwrap()["cpu"].0, "50m", "or the autoscaler could not tell the utilisation");

    let container = runtime(&object);
    let env = container.env.unwrap();
    let socket = argument("--unixsocket").unwrap();
    assert_eq!(value(&env, "SLIPWAY_REDIS_URL"), Some(format!("unix://{socket}")));
    let folder = |mounts: Option<Vec<VolumeMount>>| mounts.unwrap().into_iter().find(|m| m.name == "redis").unwrap();
    let (theirs, ours) = (folder(redis.volume_mounts), folder(container.volume_mounts));
    assert!(theirs == ours && socket.starts_with(&ours.mount_path));
    assert!(pod.volumes.unwrap().iter().any(|volume| volume.name == "redis" && volume.empty_dir.is_some()));
}

#[test]
fn a_redis_of_the_users_own_takes_the_place_of_the_sidecar() {
    let object = cached(
        json!({"results": {"ttlSeconds": 60, "bypass": "Never", "hotKeys": 100}, "externalRedis": {"url": "redis://redis.shop:6379/1"}}),
    );
    assert!(!has_redis(&object));
    let env = runtime(&object).env.unwrap();
    assert_eq!(value(&env, "SLIPWAY_REDIS_URL").as_deref(), Some("redis://redis.shop:6379/1"));
    assert_eq!(value(&env, "SLIPWAY_RESULT_CACHE_TTL_SECONDS").as_deref(), Some("60"));
    assert_eq!(value(&env, "SLIPWAY_CACHE_HOT_KEYS").as_deref(), Some("100"));
    assert_eq!(value(&env, "SLIPWAY_CACHE_NO_BYPASS").as_deref(), Some("true"));
    assert_eq!(value(&env, "SLIPWAY_RESULT_CACHE_BYTES").as_deref(), Some("67108864"));

    let object = cached(json!({"results": {}, "externalRedis": {"secretKeyRef": {"name": "redis", "key": "url"}}}));
    let env = runtime(&object).env.unwrap();
    let url = env.iter().find(|variable| variable.name == "SLIPWAY_REDIS_URL").unwrap();
    let reference = url.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap();
    assert_eq!((reference.name.as_str(), reference.key.as_str()), ("redis", "url"));
}

#[test]
fn feature_rows_are_kept_with_or_without_results() {
    let source = json!({"url": "http://store.shop/rows/{entity}", "timeoutMilliseconds": 50});
    let object = cached(json!({"features": {"ttlSeconds": 60, "source": source}, "redis": {}}));
    let env = runtime(&object).env.unwrap();
    assert_eq!(value(&env, "SLIPWAY_FEATURE_CACHE").as_deref(), Some("true"));
    assert_eq!(value(&env, "SLIPWAY_FEATURE_SOURCE_URL").as_deref(), Some("http://store.shop/rows/{entity}"));
    assert_eq!(value(&env, "SLIPWAY_FEATURE_SOURCE_TIMEOUT_MS").as_deref(), Some("50"));
    assert_eq!(value(&env, "SLIPWAY_RESULT_CACHE"), None);
    assert!(value(&env, "SLIPWAY_REDIS_URL").is_some());
}

#[test]
fn model_files_may_outlive_the_pod_in_a_claim() {
    let object = cached(json!({"models": {"claimName": "model-cache"}}));
    let pod = pods(&object).remove(0);
    let security = pod.security_context.unwrap();
    assert_eq!((security.fs_group, security.fs_group_change_policy.as_deref()), (Some(65532), Some("OnRootMismatch")));
    let volumes = pod.volumes.unwrap();
    let models: Vec<_> = volumes.iter().filter(|volume| volume.name == "models").collect();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0].persistent_volume_claim.as_ref().unwrap().claim_name, "model-cache");
    let mount = runtime(&object).volume_mounts.unwrap().into_iter().find(|mount| mount.name == "models").unwrap();
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/models", None));
    assert_eq!(pods(&minimal()).remove(0).security_context.unwrap().fs_group, None);
}

#[test]
fn without_a_cache_nothing_of_it_is_in_the_pods() {
    for object in [minimal(), cached(json!({"results": {"enabled": false}}))] {
        assert!(runtime(&object).env.unwrap().iter().all(|variable| !variable.name.contains("CACHE")));
        assert!(!has_redis(&object));
    }
}

#[test]
fn stamps_are_stable_and_tell_differences() {
    for desired in all(&full()) {
        let hash = applied_hash(&desired);
        assert_eq!(json_of(&desired)["metadata"]["annotations"][APPLIED], json!(hash));
        assert_eq!(applied_hash(&stamped(desired.clone())), hash, "stamping again changes nothing");
        assert_eq!(hash.len(), 16);
    }
    let mut other = full();
    other.spec.model.uri = "http://elsewhere/model.onnx".to_owned();
    let hash = |object: &ModelDeployment| applied_hash(&replica_set(object, &settings(), REVISION, "v7", 3));
    assert_ne!(hash(&full()), hash(&other));
    // Pinned: a change of this value applies every object of every ModelDeployment once more after an upgrade of the operator.
    assert_eq!(applied_hash(&stable_service(&full())), PINNED);
}

const PINNED: &str = "d2573daf6655481d";

#[test]
fn model_deployments_do_not_fight_over_the_gateway() {
    let (mine, mut other) = (full(), minimal());
    other.metadata.namespace = mine.metadata.namespace.clone();
    for (a, b) in gateway_set(&mine, &settings()).iter().zip(&gateway_set(&other, &settings())) {
        assert_eq!(applied_hash(a), applied_hash(b));
        let without_owners = |desired: &Desired| {
            let mut value = json_of(desired);
            value["metadata"].as_object_mut().unwrap().remove("ownerReferences");
            value
        };
        assert_eq!(without_owners(a), without_owners(b));
        assert!(is_shared(a));
    }
    assert!(!is_shared(&disruption_budget(&mine)) && !is_shared(&stable_service(&mine)));
}

#[test]
fn images_are_pulled_with_the_secrets_of_spec_and_operator() {
    let names = |pod: &PodSpec| -> Vec<String> {
        pod.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect()
    };
    let mut object = minimal();
    assert_eq!(pods(&object).iter().map(names).collect::<Vec<_>>(), [["registry"], ["registry"]]);
    object.spec.runtime.image_pull_secrets =
        serde_json::from_value(json!([{"name": "a"}, {"name": "registry"}])).unwrap();
    assert_eq!(names(&pods(&object).remove(0)), ["a", "registry"]);
    // An image of the user's own is the user's to pull; the step before it is ours, where there is one.
    object.spec.runtime.image = Some("mine:7".to_owned());
    object.spec.runtime.image_pull_secrets.clear();
    assert_eq!(names(&pods(&object).remove(0)), ["registry"]);
    object.spec.model.uri = "file:///model.onnx".to_owned();
    assert_eq!(pods(&object).remove(0).image_pull_secrets, None);
}

#[test]
fn applied_means_same_content_and_our_owner() {
    let desired = gateway_service_account(&full());
    let view = |applied: String, owner: &str| ObjectView {
        uid: "x".to_owned(),
        applied,
        owners: vec![owner.to_owned()],
        failure: String::new(),
        desired_replicas: None,
    };
    assert!(is_applied(&desired, Some(&view(applied_hash(&desired), UID)), UID));
    assert!(!is_applied(&desired, Some(&view(applied_hash(&desired), "another")), UID));
    assert!(!is_applied(&desired, Some(&view("stale".to_owned(), UID)), UID));
    assert!(!is_applied(&desired, None, UID));
}

#[test]
fn the_default_metric_gives_way_to_the_users() {
    let mut autoscaling = full().spec.autoscaling.unwrap();
    let value = json_of(&autoscaler(&full(), &autoscaling));
    assert_eq!(value["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    assert_eq!(
        value["spec"]["scaleTargetRef"],
        json!({"apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment", "name": "churn"})
    );
    autoscaling.metrics = serde_yaml::from_str(
        "
        - type: Pods
          pods: { metric: { name: queue }, target: { type: AverageValue, averageValue: 3 } }
        ",
    )
    .unwrap();
    let value = json_of(&autoscaler(&full(), &autoscaling));
    assert_eq!(value["spec"]["metrics"].as_array().unwrap().len(), 1);
    assert_eq!(value["spec"]["metrics"][0]["type"], "Pods");
}

#[test]
fn what_is_asked_to_be_kept_reaches_the_pods() {
    let mut object = minimal();
    let environment = |object: &ModelDeployment, settings: &Settings| {
        let value = json_of(&replica_set(object, settings, REVISION, "v7", 3));
        let pod = value["spec"]["template"]["spec"].clone();
        let env = pod["containers"][0]["env"].as_array().unwrap().clone();
        (pod, env.into_iter().map(|e| (e["name"].as_str().unwrap().to_owned(), e["value"].clone())).collect::<Vec<_>>())
    };
    let before = environment(&object, &settings()).1;
    assert!(!before.iter().any(|(name, _)| name.contains("BATCHING")
        || name.contains("BASELINE")
        || name.contains("SAMPLE")
        || name.contains("OTEL")));
    object.spec.model.batching = Batching::Disabled;
    object.spec.model.baseline =
        serde_json::from_value(json!({"uri": "pvc://claims/b.json", "digest": "sha256:00"})).unwrap();
    object.spec.feedback = serde_json::from_value(json!({"outcomes": ["conversion", "revenue"]})).unwrap();
    let sampling = json!({"ratePermille": 5, "sink": "s3://b/p", "redactInputs": ["email"]});
    object.spec.sampling = serde_json::from_value(sampling).unwrap();
    object.spec.runtime.env =
        serde_json::from_value(json!([{"name": "OTEL_TRACES_SAMPLER_ARG", "value": "1"}])).unwrap();
    let tracing = Some(crate::observed::Tracing { endpoint: "http://collector:4318".into(), per_million: 500 });
    let settings = Settings { tracing, ..settings() };
    let (pod, env) = environment(&object, &settings);
    for (name, value) in [
        ("SLIPWAY_BATCHING", "disabled"),
        ("SLIPWAY_BASELINE_URI", "pvc://claims/b.json"),
        ("SLIPWAY_BASELINE_DIGEST", "sha256:00"),
        ("SLIPWAY_FEEDBACK_OUTCOMES", "conversion,revenue"),
        ("SLIPWAY_SAMPLE_PAYLOADS", "0.005"),
        ("SLIPWAY_SAMPLE_SINK", "s3://b/p"),
        ("SLIPWAY_SAMPLE_REDACT", "email"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ] {
        let found: Vec<_> = env.iter().filter(|(n, _)| n == name).collect();
        assert!(found.len() == 1 && found[0].1 == value, "{name}: {found:?}");
    }
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().any(|m| m["mountPath"] == "/mnt/models/claims"), "{mounts:?}");
    let gateway = gateway_set(&object, &settings).iter().map(json_of).find(|v| v["kind"] == "Deployment").unwrap();
    let env = gateway["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(env.contains("parentbased_traceidratio") && env.contains("0.000500"), "{env}");
}

#[test]
fn canonical_json_sorts_keys_and_keeps_the_order_of_lists() {
    let value = json!({"b": [3, 1, {"z": null, "a": "\"ü"}], "a": true});
    assert_eq!(canonical_json(&value), r#"{"a":true,"b":[3,1,{"a":"\"ü","z":null}]}"#);
}
