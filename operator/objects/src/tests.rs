use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};
use serde_json::{Value, json};
use slipway_crds::labels;
use slipway_crds::v1alpha1::{ModelDeployment, PodTemplatePatch, QueueSpec};

use super::*;
use crate::desired::DesiredObject;
use crate::settings::{GatewayAutoscaler, NetworkPolicies, PlanSettings};

mod cache;
mod environment;
mod network_policy;
mod pods;
mod stamps;

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

/// Settings with every peer that an administrator can configure.
fn policies() -> NetworkPolicies {
    let namespace = |name: &str| json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]);
    let from = |name: &str| serde_json::from_value(namespace(name)).unwrap();
    NetworkPolicies {
        data_from: from("ingress"),
        private_from: from("labels"),
        metrics_from: from("monitoring"),
        operator: from("slipway-system"),
        open_ports: vec![15008],
    }
}

fn settings() -> PlanSettings {
    PlanSettings {
        gateway_image: "registry.example/slipway-gateway:1".to_owned(),
        operator_public_key: Some("cHVibGlj".to_owned()),
        gateway_replicas: 2,
        gateway_autoscaler: GatewayAutoscaler::None,
        gateway_problem: None,
        gateway_template: PodTemplatePatch::default(),
        fixed_user_ids: true,
        runtime_image: "registry.example/slipway-runtime:1".to_owned(),
        redis_image: "registry.example/slipway-redis:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        image_pull_secrets: vec!["registry".to_owned()],
        prometheus_matchers: Vec::new(),
        promql_gates: true,
        tracing: None,
        network_policies: Some(policies()),
    }
}

/// Every object of one ModelDeployment, in a fixed order.
fn all(object: &ModelDeployment) -> Vec<DesiredObject> {
    let mut all = vec![
        replica_set(object, &settings(), REVISION, "v7", 3, None),
        revision_service(object, REVISION),
        stable_service(object),
        preview_service(object),
        disruption_budget(object),
    ];
    all.extend(
        object.spec.autoscaling.as_ref().map(|autoscaling| model_autoscaler(object, autoscaling)),
    );
    all.extend(object.spec.queue().iter().flat_map(|(_, queue)| {
        let autoscaler = queue.worker.autoscaling.as_ref().map(|it| worker_autoscaler(object, it));
        [Some(worker_deployment(object, queue, &settings(), REVISION, "v7", "", None)), autoscaler]
            .into_iter()
            .flatten()
    }));
    all.extend(gateway_objects(object, &settings()));
    all.extend(policies_of(object, &settings()));
    all
}

/// All NetworkPolicies; that of the template exists only if the template declares ports.
fn policies_of(object: &ModelDeployment, settings: &PlanSettings) -> Vec<DesiredObject> {
    let all = [
        network_policy(object, settings),
        worker_network_policy(object, settings),
        template_network_policy(object, settings, REVISION),
        gateway_network_policy(object, settings),
    ];
    all.into_iter().flatten().collect()
}

fn json_of(desired: &DesiredObject) -> Value {
    desired.to_json()
}

fn pods(object: &ModelDeployment) -> Vec<PodSpec> {
    let replica_set = replica_set(object, &settings(), REVISION, "v7", 3, None);
    let gateway = gateway_deployment(object, &settings());
    let (DesiredObject::ReplicaSet(replica_set), DesiredObject::Deployment(gateway)) =
        (replica_set, gateway)
    else {
        panic!("other kinds");
    };
    let of_runtime = replica_set.spec.unwrap().template.unwrap().spec.unwrap();
    let mut pods = vec![of_runtime, gateway.spec.unwrap().template.spec.unwrap()];
    pods.extend(
        object.spec.queue().iter().map(|(_, queue)| worker(object, queue).template.spec.unwrap()),
    );
    pods
}

fn worker(object: &ModelDeployment, queue: &QueueSpec) -> DeploymentSpec {
    let DesiredObject::Deployment(it) =
        worker_deployment(object, queue, &settings(), REVISION, "v7", "", None)
    else {
        panic!()
    };
    it.spec.unwrap()
}

fn runtime(object: &ModelDeployment) -> Container {
    pods(object).remove(0).containers.remove(0)
}

#[test]
fn golden() {
    let yaml = |desired: &DesiredObject| serde_yaml::to_string(&json_of(desired)).unwrap();
    let objects: Vec<String> = all(&full()).iter().map(yaml).collect();
    let now =
        format!("# Written by the test `tests::golden`; do not edit.\n{}", objects.join("---\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/testdata/golden.yaml");
    if std::fs::read_to_string(path).ok().as_deref() != Some(now.as_str()) {
        std::fs::write(path, now).unwrap();
        panic!("the objects changed; {path} was rewritten: look at the difference and commit it");
    }
}

#[test]
fn names_and_labels_are_those_of_the_map() {
    let kind_and_name = |desired: &DesiredObject| {
        let value = json_of(desired);
        format!(
            "{}/{}",
            value["kind"].as_str().unwrap(),
            value["metadata"]["name"].as_str().unwrap()
        )
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
            "Service/slipway-gateway",
            "Deployment/slipway-gateway",
            "PodDisruptionBudget/slipway-gateway",
            "NetworkPolicy/churn",
            "NetworkPolicy/churn-worker",
            "NetworkPolicy/churn-0123456789",
            "NetworkPolicy/slipway-gateway",
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
        assert_eq!(
            labels[labels::MODEL_DEPLOYMENT],
            if gateway { Value::Null } else { json!("churn") }
        );
        let of_revision = value["metadata"]["name"] == json!("churn-0123456789");
        assert_eq!(
            labels[labels::REVISION],
            if of_revision { json!(REVISION) } else { Value::Null }
        );
        assert_eq!(value["metadata"]["namespace"], "shop");
        let owner = &value["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], UID);
        assert_eq!(owner["controller"], if gateway { Value::Null } else { json!(true) });
    }
}

#[test]
fn selectors_select_what_they_shall() {
    let DesiredObject::ReplicaSet(set) = replica_set(&full(), &settings(), REVISION, "v7", 3, None)
    else {
        panic!()
    };
    let spec = set.spec.unwrap();
    let pod_labels = spec.template.unwrap().metadata.unwrap().labels.unwrap();
    let selected = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .iter()
            .all(|(k, v)| pod_labels.get(k).map(String::as_str) == v.as_str())
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
        assert!(
            !selected(&selector),
            "the stable address must not reach runtime pods past the gateway"
        );
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
        let all = pod.containers.into_iter().chain(pod.init_containers.into_iter().flatten());
        for container in
            all.filter(|container| !["proxy", "credentials"].contains(&container.name.as_str()))
        {
            let of_container = container.security_context.unwrap();
            assert_eq!(of_container.allow_privilege_escalation, Some(false));
            assert_eq!(of_container.read_only_root_filesystem, Some(true));
            assert_eq!(of_container.capabilities.unwrap().drop.unwrap(), ["ALL"]);
            assert!(
                container.ports.unwrap_or_default().iter().all(|port| port.host_port.is_none())
            );
        }
    }
}

#[test]
fn the_default_metric_gives_way_to_the_users() {
    let mut autoscaling = full().spec.autoscaling.unwrap();
    let value = json_of(&model_autoscaler(&full(), &autoscaling));
    assert_eq!(
        value["spec"]["metrics"][0]["containerResource"]["target"]["averageUtilization"],
        80
    );
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
    let value = json_of(&model_autoscaler(&full(), &autoscaling));
    assert_eq!(value["spec"]["metrics"].as_array().unwrap().len(), 1);
    assert_eq!(value["spec"]["metrics"][0]["type"], "Pods");
}

fn value(env: &[EnvVar], name: &str) -> Option<String> {
    env.iter().find(|variable| variable.name == name).and_then(|variable| variable.value.clone())
}
