//! The pods that run jobs, and their autoscaler.
//!
//! There is one Deployment for all revisions, built from the spec while the spec's revision is the
//! stable one. So the candidate has no workers, the workers of stable continue during a rollout,
//! and at the promotion the Deployment updates them to the new revision; an old worker completes
//! its jobs or returns them to the queue. Unlike the ReplicaSets of revisions it also follows a
//! newer default image of the operator: workers serve no clients, so their restart has no visible
//! effect.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, ExternalMetricSource, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
};
use k8s_openapi::api::core::v1::{EnvVar, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use slipway_contracts::environment;
use slipway_contracts::metric_names::QUEUE_JOBS;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{ModelDeployment, QueueSpec, SERVER_CONTAINER, WorkerAutoscaling};

use crate::desired::DesiredObject;
use crate::hash::with_applied_hash;
use crate::meta::{
    LabelMap, controlled_metadata, label_map, label_selector, worker_labels, worker_selector,
};
use crate::pod::{env_from_secret, env_var, scrape_annotations, with_evictable_volumes};
use crate::replica_set::{self, with_default_requests};
use crate::reserved::{FETCH, HTTP, METRICS, WORKER, worker_name};
use crate::settings::PlanSettings;
use crate::template;

/// Between the end of a worker's drain and the end of its pod's grace period.
const AFTER_DRAIN_SECONDS: i64 = 10;

/// The Deployment `<name>-worker`. `digest` is that of the model, as for serving pods. A different
/// `restart` replaces the pods by the Deployment's rolling update.
pub fn worker_deployment(
    object: &ModelDeployment,
    queue: &QueueSpec,
    settings: &PlanSettings,
    revision: &str,
    version: &str,
    digest: &str,
    restart: Option<Timestamp>,
) -> DesiredObject {
    let (name, template) = (object.name_any(), &object.spec.template);
    let pod = worker_pod(object, queue, settings, revision, version, digest);
    let mut annotations = with_evictable_volumes(scrape_annotations(METRICS.1), &pod);
    annotations.extend(restart.map(|at| (labels::RESTART_TIME.to_owned(), at.to_string())));
    with_applied_hash(DesiredObject::Deployment(Deployment {
        metadata: controlled_metadata(object, worker_name(&name), worker_labels(&name)),
        spec: Some(DeploymentSpec {
            // An autoscaler, if there is one, owns this field.
            replicas: queue.worker.autoscaling.is_none().then_some(queue.worker.replicas),
            selector: label_selector(worker_selector(&name)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(template::template_labels(template, pod_labels(&name, revision))),
                    annotations: Some(template::template_annotations(template, annotations)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }))
}

fn pod_labels(name: &str, revision: &str) -> LabelMap {
    let mut all = worker_labels(name);
    all.insert(labels::REVISION.to_owned(), revision.to_owned());
    all
}

/// Builds a serving pod with a different first argument of the program and the settings of the
/// worker's own part of the spec.
fn worker_pod(
    object: &ModelDeployment,
    queue: &QueueSpec,
    settings: &PlanSettings,
    revision: &str,
    version: &str,
    digest: &str,
) -> PodSpec {
    let worker = &queue.worker;
    let alike = worker_selector(&object.name_any());
    let mut pod = replica_set::serving_pod(object, settings, revision, version, digest, alike);
    if !worker.node_selector.is_empty() {
        pod.node_selector = Some(worker.node_selector.clone());
    }
    if !worker.tolerations.is_empty() {
        pod.tolerations = Some(worker.tolerations.clone());
    }
    if let Some(affinity) = &worker.affinity {
        pod.affinity = Some(affinity.clone());
    }
    pod.termination_grace_period_seconds =
        Some(i64::from(worker.drain_seconds) + AFTER_DRAIN_SECONDS);
    let own = worker.resources.clone().map(with_default_requests);
    for step in pod.init_containers.iter_mut().flatten().filter(|step| step.name == FETCH) {
        step.resources = own.clone().map(template::init_step_resources).or(step.resources.take());
    }
    for container in
        pod.containers.iter_mut().filter(|container| container.name == SERVER_CONTAINER)
    {
        container.name = WORKER.to_owned();
        if let Some(first) = container.args.as_mut().and_then(|args| args.first_mut()) {
            WORKER.clone_into(first);
        }
        // A worker serves no predictions.
        if let Some(ports) = &mut container.ports {
            ports.retain(|port| port.name.as_deref() != Some(HTTP.0));
        }
        container.resources = own.clone().or(container.resources.take());
        // Before the user's variables, which may refer to these.
        container.env.get_or_insert_default().splice(0..0, worker_environment(queue));
    }
    pod
}

fn worker_environment(queue: &QueueSpec) -> Vec<EnvVar> {
    let worker = &queue.worker;
    let mut all = vec![
        env_var(environment::WORKER_MAX_JOBS, &worker.max_batch_jobs.to_string()),
        env_var(environment::WORKER_DRAIN_SECONDS, &worker.drain_seconds.to_string()),
    ];
    let key = queue.callbacks.as_ref().map(|it| {
        env_from_secret(environment::CALLBACK_SIGNING_KEY, &it.signing_key_secret_key_ref)
    });
    all.extend(key);
    all
}

/// The HorizontalPodAutoscaler `<name>-worker`.
pub fn worker_autoscaler(
    object: &ModelDeployment,
    autoscaling: &WorkerAutoscaling,
) -> DesiredObject {
    let name = object.name_any();
    let metric = MetricSpec {
        type_: "External".to_owned(),
        external: Some(ExternalMetricSource {
            metric: MetricIdentifier {
                name: QUEUE_JOBS.to_owned(),
                selector: Some(label_selector(label_map([("modeldeployment", &name)]))),
            },
            target: MetricTarget {
                type_: "AverageValue".to_owned(),
                average_value: Some(Quantity(autoscaling.target_jobs.to_string())),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    };
    with_applied_hash(DesiredObject::HorizontalPodAutoscaler(HorizontalPodAutoscaler {
        metadata: controlled_metadata(object, worker_name(&name), worker_labels(&name)),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: worker_name(&name),
            },
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(vec![metric]),
            behavior: autoscaling.behavior.clone(),
        }),
        status: None,
    }))
}
