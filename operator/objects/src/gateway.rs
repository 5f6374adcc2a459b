//! The gateway of a namespace. All objects here, except their owner references, are the same for
//! every ModelDeployment of the namespace.

use std::collections::BTreeMap;

use k8s_openapi::Resource as _;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, PodSpec, PodTemplateSpec, ResourceRequirements, ServiceAccount, VolumeMount,
};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use slipway_contracts::environment;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::autoscaler::eviction_budget;
use crate::desired::DesiredObject;
use crate::hash::with_applied_hash;
use crate::meta::{
    gateway_labels, gateway_selector, label_selector, shared_metadata, unowned_metadata,
};
use crate::pod::{
    TERMINATION_GRACE_SECONDS, container_port, container_security, env_from_field, env_var,
    liveness_probe, pod_security, pull_secrets, readiness_probe, scrape_annotations,
    spread_affinity, tracing_env,
};
use crate::reserved::{GATEWAY, GATEWAY_ADMIN, HTTP, PRIVATE};
use crate::service::gateway_service;
use crate::settings::{GatewayAutoscaler, PlanSettings};
use crate::{keys, template};

/// The container of a gateway's pod.
const CONTAINER: &str = "gateway";

/// All objects in the order in which they are applied: account and permissions before the pods that
/// need them.
pub fn gateway_objects(object: &ModelDeployment, settings: &PlanSettings) -> [DesiredObject; 5] {
    [
        gateway_service_account(object),
        gateway_role_binding(object),
        gateway_service(object),
        gateway_deployment(object, settings),
        gateway_disruption_budget(object),
    ]
}

/// The gateway's account. Only the pods mount its token.
pub fn gateway_service_account(object: &ModelDeployment) -> DesiredObject {
    with_applied_hash(DesiredObject::ServiceAccount(ServiceAccount {
        metadata: shared_metadata(object),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }))
}

/// The gateway's permissions: the chart's ClusterRole `slipway-gateway`, within this namespace.
pub fn gateway_role_binding(object: &ModelDeployment) -> DesiredObject {
    with_applied_hash(DesiredObject::RoleBinding(RoleBinding {
        metadata: shared_metadata(object),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: GATEWAY.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: GATEWAY.to_owned(),
            namespace: object.namespace(),
            ..Subject::default()
        }]),
    }))
}

/// The gateway's pods. A rolling update starts the new pod before it terminates the old one, so
/// that the number of pods never drops below the requested one.
pub fn gateway_deployment(object: &ModelDeployment, settings: &PlanSettings) -> DesiredObject {
    build_deployment(shared_metadata(object), settings)
}

/// The applied hash of a namespace's gateway Deployment with the current settings.
pub fn gateway_applied_hash(namespace: &str, settings: &PlanSettings) -> String {
    build_deployment(unowned_metadata(namespace), settings).applied_hash().to_owned()
}

fn build_deployment(metadata: ObjectMeta, settings: &PlanSettings) -> DesiredObject {
    with_applied_hash(DesiredObject::Deployment(Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            // An autoscaler, if there is one, owns this field.
            replicas: (settings.gateway_autoscaler == GatewayAutoscaler::None)
                .then_some(settings.gateway_replicas),
            selector: label_selector(gateway_selector()),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(template::template_labels(
                        &settings.gateway_template,
                        gateway_labels(),
                    )),
                    annotations: Some(template::template_annotations(
                        &settings.gateway_template,
                        scrape_annotations(GATEWAY_ADMIN.1),
                    )),
                    ..ObjectMeta::default()
                }),
                spec: Some(gateway_pod(settings)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }))
}

/// The initial number of pods of a gateway.
pub fn initial_gateway_replicas(settings: &PlanSettings) -> i32 {
    match &settings.gateway_autoscaler {
        GatewayAutoscaler::Ours { min_replicas, max_replicas, .. } => {
            settings.gateway_replicas.clamp(*min_replicas, *max_replicas)
        }
        _ => settings.gateway_replicas,
    }
}

/// The HorizontalPodAutoscaler of the gateway, if the operator creates one. It uses only CPU,
/// because the gateway's limits for its clients bound its memory.
pub fn gateway_autoscaler(
    object: &ModelDeployment,
    settings: &PlanSettings,
) -> Option<DesiredObject> {
    let GatewayAutoscaler::Ours { min_replicas, max_replicas, target_average_cpu } =
        &settings.gateway_autoscaler
    else {
        return None;
    };
    let target = CrossVersionObjectReference {
        api_version: Some(Deployment::API_VERSION.to_owned()),
        kind: Deployment::KIND.to_owned(),
        name: GATEWAY.to_owned(),
    };
    // In cores instead of percent of the request, because the request covers only a gateway without
    // load.
    let metric = ContainerResourceMetricSource {
        container: CONTAINER.to_owned(),
        name: "cpu".to_owned(),
        target: MetricTarget {
            type_: "AverageValue".to_owned(),
            average_value: Some(target_average_cpu.clone()),
            ..MetricTarget::default()
        },
    };
    Some(with_applied_hash(DesiredObject::HorizontalPodAutoscaler(HorizontalPodAutoscaler {
        metadata: shared_metadata(object),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: target,
            min_replicas: Some(*min_replicas),
            max_replicas: *max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "ContainerResource".to_owned(),
                container_resource: Some(metric),
                ..MetricSpec::default()
            }]),
            behavior: None,
        }),
        status: None,
    })))
}

/// The budget allows one eviction of a gateway pod at a time.
pub fn gateway_disruption_budget(object: &ModelDeployment) -> DesiredObject {
    with_applied_hash(DesiredObject::PodDisruptionBudget(eviction_budget(
        shared_metadata(object),
        gateway_selector(),
        IntOrString::Int(1),
    )))
}

fn gateway_pod(settings: &PlanSettings) -> PodSpec {
    let (volume, mount) = keys::keys_volume();
    let ours = PodSpec {
        containers: vec![gateway_container(settings, mount)],
        volumes: Some(vec![volume]),
        service_account_name: Some(GATEWAY.to_owned()),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        image_pull_secrets: pull_secrets(&[], &settings.image_pull_secrets),
        security_context: Some(pod_security(settings)),
        // On SIGTERM the gateway becomes unready, waits until the change of endpoints has
        // propagated and completes requests in flight, so no preStop hook is needed.
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        affinity: Some(spread_affinity(gateway_selector())),
        ..PodSpec::default()
    };
    template::merge_pod_template(ours, &settings.gateway_template)
}

fn gateway_environment(settings: &PlanSettings) -> Vec<EnvVar> {
    let mut all = vec![
        env_from_field(environment::POD_NAME, "metadata.name"),
        env_from_field(environment::POD_NAMESPACE, "metadata.namespace"),
    ];
    all.push(keys::keys_environment());
    all.extend(
        settings
            .operator_public_key
            .as_ref()
            .map(|key| env_var(environment::OPERATOR_PUBLIC_KEY, key)),
    );
    all.extend(tracing_env(settings));
    all
}

fn resource_quantities(of: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    of.iter()
        .map(|(resource, amount)| ((*resource).to_owned(), Quantity((*amount).to_owned())))
        .collect()
}

fn gateway_container(settings: &PlanSettings, keys: VolumeMount) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(settings.gateway_image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        env: Some(gateway_environment(settings)),
        ports: Some(vec![
            container_port(HTTP.0, HTTP.1),
            container_port(PRIVATE.0, PRIVATE.1),
            container_port(GATEWAY_ADMIN.0, GATEWAY_ADMIN.1),
        ]),
        readiness_probe: Some(readiness_probe(GATEWAY_ADMIN.0)),
        liveness_probe: Some(liveness_probe(GATEWAY_ADMIN.0)),
        // No CPU limit: throttling the gateway would slow down every model. The memory limit is far
        // above the gateway's own bounds (256 MiB of bodies, and the buffers of 10,000
        // connections), so that only a faulty gateway reaches it.
        resources: Some(ResourceRequirements {
            requests: Some(resource_quantities(&[("cpu", "100m"), ("memory", "64Mi")])),
            limits: Some(resource_quantities(&[("memory", "2Gi")])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![keys]),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}
