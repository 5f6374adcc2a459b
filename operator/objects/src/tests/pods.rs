//! The pods of models and workers.

use serde_json::json;
use slipway_crds::v1alpha1::{BatchingPolicy, PodTemplatePatch, SERVER_CONTAINER};

use super::*;

#[test]
fn the_revision_in_the_environment_cannot_be_forged() {
    let env = runtime(&full()).env.unwrap();
    let values = |name: &str| {
        env.iter().filter(|e| e.name == name).map(|e| e.value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(values("SLIPWAY_REVISION"), [Some(REVISION.to_owned())]);
    assert_eq!(values("SLIPWAY_MODEL_NAME"), [Some("churn-model".to_owned())]);
    assert_eq!(values("AWS_REGION"), [Some("eu-central-1".to_owned())]);
}

#[test]
fn workers_are_pods_that_nobody_is_sent_to() {
    let object = full();
    let queue = object.spec.queue().unwrap().1;
    let spec = worker(&object, &queue);
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    let selected = |selector: &Value| {
        selector
            .as_object()
            .unwrap()
            .iter()
            .all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str())
    };
    assert!(selected(&serde_json::to_value(spec.selector.match_labels.unwrap()).unwrap()));
    for selector in [
        &json_of(&revision_service(&object, REVISION))["spec"]["selector"],
        &json_of(&stable_service(&object))["spec"]["selector"],
        &json_of(&disruption_budget(&object))["spec"]["selector"]["matchLabels"],
    ] {
        assert!(!selected(selector), "{selector}");
    }
    let in_scale = |part: &str| {
        part.split_once('=').is_some_and(|(k, v)| labels.get(k).map(String::as_str) == Some(v))
    };
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
    assert!(
        env.iter()
            .any(|e| e.name == "SLIPWAY_QUEUE_NAME" && e.value.as_deref() == Some("shop/churn"))
    );
    let served = runtime(&object).env.unwrap();
    assert!(
        served.iter().all(|e| e.name != "SLIPWAY_CALLBACK_SIGNING_KEY"),
        "who serves signs nothing"
    );
    assert!(served.iter().any(|e| e.name == "SLIPWAY_CALLBACK_ALLOW"));
    let fixed = QueueSpec {
        worker: slipway_crds::v1alpha1::WorkerSpec { replicas: 3, ..Default::default() },
        ..queue
    };
    assert_eq!(worker(&object, &fixed).replicas, Some(3));
    assert!(!is_shared(&worker_deployment(&object, &fixed, &settings(), REVISION, "v7", "", None)));
}

#[test]
fn defaults_of_a_minimal_object() {
    let pod = pods(&minimal()).remove(0);
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.volumes.unwrap().len(), 3);
    let container = runtime(&minimal());
    assert_eq!(container.image.as_deref(), Some("registry.example/slipway-runtime:1"));
    assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
    let requests = container.resources.unwrap().requests.unwrap();
    assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("100m", "128Mi"));
    let env = container.env.unwrap();
    assert!(
        env.iter().any(|e| e.name == "SLIPWAY_MODEL_NAME" && e.value.as_deref() == Some("digits"))
    );
    assert!(env.iter().any(|e| e.name == "SLIPWAY_MODEL_DIGEST" && e.value.as_deref() == Some("")));
}

#[test]
fn what_the_user_names_is_taken() {
    let mut object = minimal();
    object.spec.template.server_container_mut().image = Some("mine:7".to_owned());
    object.spec.template.spec.as_mut().unwrap().service_account_name =
        Some("store-reader".to_owned());
    let container = runtime(&object);
    assert_eq!(container.image.as_deref(), Some("mine:7"));
    assert_eq!(container.image_pull_policy, None, "Kubernetes' default by tag");
    let pod = pods(&object).remove(0);
    assert_eq!(pod.service_account_name.as_deref(), Some("store-reader"));
    assert_eq!(pod.automount_service_account_token, None, "the account decides");
    // Kubernetes uses a limit without a request as the request; another request would change the
    // QoS class of Guaranteed pods.
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

#[test]
fn images_are_pulled_with_the_secrets_of_spec_and_operator() {
    let names = |pod: &PodSpec| -> Vec<String> {
        pod.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect()
    };
    let mut object = minimal();
    assert_eq!(pods(&object).iter().map(names).collect::<Vec<_>>(), [["registry"], ["registry"]]);
    object.spec.template = serde_json::from_value(
        json!({"spec": {"imagePullSecrets": [{"name": "a"}, {"name": "registry"}]}}),
    )
    .unwrap();
    assert_eq!(names(&pods(&object).remove(0)), ["a", "registry"]);
    // The user provides the pull secrets for an own image; the init container, if there is one,
    // uses an operator image.
    object.spec.template = PodTemplatePatch::default();
    object.spec.template.server_container_mut().image = Some("mine:7".to_owned());
    assert_eq!(names(&pods(&object).remove(0)), ["registry"]);
    object.spec.model.uri = "file:///model.onnx".to_owned();
    assert_eq!(pods(&object).remove(0).image_pull_secrets, None);
}

#[test]
fn what_is_asked_to_be_kept_reaches_the_pods() {
    let mut object = minimal();
    let environment = |object: &ModelDeployment, settings: &PlanSettings| {
        let value = json_of(&replica_set(object, settings, REVISION, "v7", 3, None));
        let pod = value["spec"]["template"]["spec"].clone();
        let env = pod["containers"][0]["env"].as_array().unwrap().clone();
        (
            pod,
            env.into_iter()
                .map(|e| (e["name"].as_str().unwrap().to_owned(), e["value"].clone()))
                .collect::<Vec<_>>(),
        )
    };
    let before = environment(&object, &settings()).1;
    assert!(!before.iter().any(|(name, _)| name.contains("BATCHING")
        || name.contains("BASELINE")
        || name.contains("SAMPLE")
        || name.contains("OTEL")));
    object.spec.model.batching = BatchingPolicy::Disabled;
    object.spec.model.baseline =
        serde_json::from_value(json!({"uri": "pvc://claims/b.json", "digest": "sha256:00"}))
            .unwrap();
    let sampling = json!({"rate": "0.5%", "sink": "s3://b/p", "redactInputs": ["email"]});
    object.spec.server.sampling = serde_json::from_value(sampling).unwrap();
    object.spec.template.server_container_mut().env =
        serde_json::from_value(json!([{"name": "OTEL_TRACES_SAMPLER_ARG", "value": "1"}])).unwrap();
    let tracing = Some(crate::settings::TracingSettings {
        endpoint: "http://collector:4318".into(),
        per_million: 500,
    });
    let settings = PlanSettings { tracing, ..settings() };
    let (pod, env) = environment(&object, &settings);
    for (name, value) in [
        ("SLIPWAY_BATCHING", "disabled"),
        ("SLIPWAY_BASELINE_URI", "pvc://claims/b.json"),
        ("SLIPWAY_BASELINE_DIGEST", "sha256:00"),
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
    let gateway = gateway_objects(&object, &settings)
        .iter()
        .map(json_of)
        .find(|v| v["kind"] == "Deployment")
        .unwrap();
    let env = gateway["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(env.contains("parentbased_traceidratio") && env.contains("0.000500"), "{env}");
}

/// Only programs that need the keys of the namespace get them: neither the init container, which
/// fetches from any location, nor a server with another image.
#[test]
fn keys_are_for_our_own_programs() {
    let mounts = |container: &Container| {
        container
            .volume_mounts
            .iter()
            .flatten()
            .any(|mount| mount.mount_path == "/var/run/slipway/keys")
    };
    let told = |container: &Container| {
        container.env.iter().flatten().any(|variable| variable.name == "SLIPWAY_KEYS_DIRECTORY")
    };
    for pod in pods(&minimal()) {
        let secrets: Vec<_> =
            pod.volumes.iter().flatten().filter_map(|volume| volume.secret.as_ref()).collect();
        assert!(matches!(secrets[..], [secret] if secret.optional == Some(true)), "{secrets:?}");
        let server = &pod.containers[0];
        assert!(mounts(server) && told(server));
        assert!(!pod.init_containers.iter().flatten().any(mounts));
    }
    let mut own_image = minimal();
    own_image.spec.template.server_container_mut().image = Some("registry.example/own:1".into());
    for pod in pods(&own_image).into_iter().filter(|pod| pod.containers[0].name == SERVER_CONTAINER)
    {
        assert!(!pod.containers.iter().any(|container| mounts(container) || told(container)));
        assert!(pod.volumes.iter().flatten().all(|volume| volume.secret.is_none()));
    }
}

/// The init container runs Slipway's program even with the user's own server image, with the
/// environment and the resources of the server.
#[test]
fn the_step_before_the_server_is_our_program_with_the_servers_room() {
    let fetch = |object: &ModelDeployment| {
        let steps = pods(object).remove(0).init_containers.unwrap_or_default();
        steps.into_iter().find(|step| step.name == FETCH)
    };
    for object in [minimal(), full()] {
        let (fetch, server) = (fetch(&object).unwrap(), runtime(&object));
        let own = server.image.as_deref() == Some("registry.example/slipway-runtime:1");
        assert_eq!(fetch.image.as_deref(), Some("registry.example/slipway-runtime:1"));
        let rest = server.args.unwrap()[1..].to_vec();
        let args = fetch.args.unwrap();
        assert_eq!((args[0].as_str(), &args[1..]), ("fetch", if own { &rest[..] } else { &[] }));
        assert_eq!((fetch.env, fetch.resources), (server.env, server.resources));
        let mut mounts = server.volume_mounts.unwrap();
        mounts.retain(|mount| mount.name != "slipway-keys");
        assert_eq!(
            (fetch.volume_mounts, fetch.security_context),
            (Some(mounts), server.security_context)
        );
        assert!(
            fetch.ports.is_none()
                && fetch.readiness_probe.is_none()
                && fetch.restart_policy.is_none()
        );
    }
    let mut object = minimal();
    object.spec.template.server_container_mut().image = Some("mine:7".to_owned());
    object.spec.template.server_container_mut().args = Some(vec!["--theirs".to_owned()]);
    let of_their_image = fetch(&object).unwrap();
    assert_eq!(of_their_image.image.as_deref(), Some("registry.example/slipway-runtime:1"));
    assert_eq!(
        of_their_image.args.unwrap(),
        ["fetch"],
        "the arguments of another program mean nothing to ours"
    );
    object.spec.model.uri = "file:///model.onnx".to_owned();
    assert!(fetch(&object).is_none(), "their image holds the model");
}

#[test]
fn a_template_is_merged_by_names() {
    let object = full();
    let pod = pods(&object).remove(0);
    let names =
        |containers: &[Container]| containers.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&pod.containers), ["server", "proxy"]);
    assert_eq!(names(&pod.init_containers.clone().unwrap()), ["credentials", "fetch", "redis"]);
    let server = &pod.containers[0];
    assert_eq!(server.args.clone().unwrap(), ["serve", "--threads=2"]);
    let mounts = |container: &Container| {
        container
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| mount.mount_path.clone())
            .collect::<Vec<_>>()
    };
    for path in ["/models", "/tmp", "/dev/shm"] {
        assert!(mounts(server).contains(&path.to_owned()), "{path}");
    }
    let volume = |name: &str| {
        pod.volumes.iter().flatten().filter(|it| it.name == name).cloned().collect::<Vec<_>>()
    };
    let size = |name: &str| volume(name).remove(0).empty_dir.unwrap().size_limit.unwrap().0;
    assert_eq!(
        (volume("tmp").len(), size("tmp"), size("models")),
        (1, "20Gi".to_owned(), "8Gi".to_owned())
    );
    let desired = json_of(&replica_set(&object, &settings(), REVISION, "v7", 3, None));
    let metadata = &desired["spec"]["template"]["metadata"];
    assert_eq!(metadata["labels"]["team"], "growth");
    assert_eq!(
        metadata["labels"][labels::MANAGED_BY],
        labels::MANAGER,
        "what finds our pods cannot be forged"
    );
    assert_eq!(metadata["annotations"]["sidecar.istio.io/inject"], "false");
    assert_eq!(metadata["annotations"]["prometheus.io/scrape"], "true");
    // The workers inherit it; only the container of the model server runs another program.
    let worker = worker(&object, &object.spec.queue().unwrap().1).template;
    assert_eq!(names(&worker.spec.unwrap().containers), ["worker", "proxy"]);
    assert_eq!(worker.metadata.unwrap().labels.unwrap()["team"], "growth");
}

#[test]
fn what_a_template_gives_takes_the_place_of_ours() {
    let mut object = minimal();
    object.spec.template = serde_json::from_value(json!({"spec": {
        "affinity": {"nodeAffinity": {}},
        "automountServiceAccountToken": true,
        "containers": [{
            "name": "server",
            "readinessProbe": {"periodSeconds": 7, "exec": {"command": ["true"]}},
            "ports": [{"name": "debug", "containerPort": 6060}, {"name": "http", "containerPort": 1}],
            "volumeMounts": [{"name": "mine", "mountPath": "/models", "readOnly": true}],
            "envFrom": [{"secretRef": {"name": "store"}}],
            "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "4Gi"}},
            "securityContext": {"readOnlyRootFilesystem": false}
        }],
        "securityContext": {"runAsUser": 1_000_620_000},
        "restartPolicy": "Never",
        "volumes": [{"name": "mine", "persistentVolumeClaim": {"claimName": "mine"}}]
    }}))
    .unwrap();
    let pod = pods(&object).remove(0);
    assert_eq!(
        (pod.restart_policy.as_deref(), pod.automount_service_account_token),
        (None, Some(true))
    );
    let affinity = pod.affinity.unwrap();
    assert!(affinity.node_affinity.is_some() && affinity.pod_anti_affinity.is_some());
    let security = pod.security_context.unwrap();
    assert_eq!((security.run_as_user, security.run_as_non_root), (Some(1_000_620_000), Some(true)));
    let server = pod.containers.into_iter().next().unwrap();
    let probe = server.readiness_probe.unwrap();
    assert!(probe.exec.is_none() && probe.http_get.is_some() && probe.period_seconds == Some(7));
    let ports: Vec<i32> = server.ports.unwrap().iter().map(|port| port.container_port).collect();
    assert_eq!(ports, [8080, 9090, 6060]);
    let models: Vec<_> =
        server.volume_mounts.unwrap().into_iter().filter(|it| it.mount_path == "/models").collect();
    assert_eq!((models.len(), models[0].name.as_str()), (1, "mine"));
    let security = server.security_context.unwrap();
    assert_eq!(
        (security.read_only_root_filesystem, security.allow_privilege_escalation),
        (Some(false), Some(false))
    );
    let limits = server.resources.unwrap().limits.unwrap();
    // The init container has the credentials and no GPU.
    let fetch = pod.init_containers.unwrap().remove(0);
    assert_eq!(fetch.env_from.unwrap()[0].secret_ref.as_ref().unwrap().name, "store");
    let of_fetch = fetch.resources.unwrap().limits.unwrap();
    assert!(
        limits.contains_key("nvidia.com/gpu") && of_fetch.keys().eq(["memory"]),
        "{of_fetch:?}"
    );
}
