//! The pods of one revision.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, PodSpec, PodTemplateSpec, ResourceRequirements, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use slipway_contracts::{environment, files};
use slipway_crds::labels;
use slipway_crds::v1alpha1::{
    BatchingPolicy, ModelDeployment, ModelDeploymentSpec, SERVER_CONTAINER,
};

use crate::desired::DesiredObject;
use crate::hash::with_applied_hash;
use crate::meta::{
    LabelMap, controlled_metadata, label_map, label_selector, revision_labels, revision_selector,
    runtime_selector,
};
use crate::pod::{
    TERMINATION_GRACE_SECONDS, container_port, container_security, env_from_field, env_var,
    liveness_probe, pod_security, pull_secrets, readiness_probe, scrape_annotations,
    spread_affinity, tracing_env, with_evictable_volumes,
};
use crate::queue::queue_environment;
use crate::reserved::{DIGEST_VARIABLE, FETCH, HTTP, KEYS_VOLUME, METRICS, revision_name};
use crate::settings::PlanSettings;
use crate::volumes::pod_volumes;
use crate::{cache, keys, template};

/// Default requests of a pod. A small model on CPU fits; utilisation targets of the autoscaler are
/// relative to a CPU request.
const DEFAULT_REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "128Mi")];

/// The ReplicaSet `<name>-<revision>` with the pods of docs/contracts.md ("Environment of the model
/// server").
///
/// It is applied once, if it is missing. Its template is a function of the revision; changes by an
/// upgrade of the operator (a newer default image) reach users with their next revision, or with a
/// restart that they request. If another client changed it, it is applied again, with the digest
/// that its first pod has `found` in the meantime; its applied hash stays that of the original
/// content.
pub fn replica_set(
    object: &ModelDeployment,
    settings: &PlanSettings,
    revision: &str,
    version: &str,
    replicas: i32,
    found: Option<&str>,
) -> DesiredObject {
    let asked = object.spec.model.digest.as_deref().unwrap_or_default();
    let mut made =
        with_applied_hash(build_replica_set(object, settings, revision, version, replicas, asked));
    if let Some(found) = found.filter(|found| *found != asked && has_fetch_step(object)) {
        let stamp = made.applied_hash().to_owned();
        made = build_replica_set(object, settings, revision, version, replicas, found);
        made.metadata_mut()
            .annotations
            .get_or_insert_default()
            .insert(labels::APPLIED.to_owned(), stamp);
    }
    made
}

fn build_replica_set(
    object: &ModelDeployment,
    settings: &PlanSettings,
    revision: &str,
    version: &str,
    replicas: i32,
    digest: &str,
) -> DesiredObject {
    let (name, template) = (object.name_any(), &object.spec.template);
    let mut metadata = controlled_metadata(
        object,
        revision_name(&name, revision),
        revision_labels(&name, revision),
    );
    let mut annotations = label_map([(labels::VERSION, version)]);
    if has_fetch_step(object) {
        annotations.insert(labels::MODEL_DIGEST.to_owned(), digest.to_owned());
    }
    metadata.annotations = Some(annotations);
    let pod = serving_pod(object, settings, revision, version, digest, runtime_selector(&name));
    DesiredObject::ReplicaSet(ReplicaSet {
        metadata,
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            selector: label_selector(revision_selector(&name, revision)),
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(template::template_labels(
                        template,
                        revision_labels(&name, revision),
                    )),
                    annotations: Some(template::template_annotations(
                        template,
                        with_evictable_volumes(scrape_annotations(METRICS.1), &pod),
                    )),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            }),
            ..ReplicaSetSpec::default()
        }),
        status: None,
    })
}

/// The images in a ReplicaSet's template, by container.
pub fn container_images(set: &ReplicaSet) -> BTreeMap<String, String> {
    let pod = set.spec.as_ref().and_then(|spec| spec.template.as_ref()?.spec.as_ref());
    let steps = pod.and_then(|pod| pod.init_containers.as_ref()).into_iter().flatten();
    let all = pod.into_iter().flat_map(|pod| &pod.containers).chain(steps);
    all.filter_map(|container| Some((container.name.clone(), container.image.clone()?))).collect()
}

/// Whether an init container fetches the model and reports its digest. It does not if the user's
/// own image contains the model: the image has its own digest.
pub fn has_fetch_step(object: &ModelDeployment) -> bool {
    !(object.spec.model.uri.starts_with("file://") && object.spec.template.server_image().is_some())
}

/// A serving pod; the workers' pods are derived from it. `digest` is that of the model, empty while
/// it is not known. Pods with the labels `alike` prefer different nodes.
pub(crate) fn serving_pod(
    object: &ModelDeployment,
    settings: &PlanSettings,
    revision: &str,
    version: &str,
    digest: &str,
    alike: LabelMap,
) -> PodSpec {
    let (model, cache) = (&object.spec.model, object.spec.server.cache.as_ref());
    let baseline = model.baseline.as_ref().map(|baseline| baseline.uri.as_str());
    let (mut volumes, mut mounts) =
        pod_volumes(&model.uri, baseline, cache::model_cache_volume(cache));
    if let Some((volume, mount)) = cache::socket_volume(cache) {
        volumes.push(volume);
        mounts.push(mount);
    }
    // Not for the user's own image: only programs that need the keys of the namespace get them.
    if object.spec.template.server_image().is_none() {
        let (volume, mount) = keys::keys_volume();
        volumes.push(volume);
        mounts.push(mount);
    }
    let ours = PodSpec {
        containers: vec![server_container(object, settings, revision, version, digest, mounts)],
        volumes: Some(volumes),
        security_context: Some(cache::cache_pod_security(cache, pod_security(settings))),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        automount_service_account_token: Some(false),
        // One variable for every Service of the namespace would slow down the start and leak
        // information.
        enable_service_links: Some(false),
        affinity: Some(spread_affinity(alike)),
        ..PodSpec::default()
    };
    let mut pod = template::merge_pod_template(ours, &object.spec.template);
    let own_image = object.spec.template.server_image().is_some();
    let mut steps = Vec::new();
    if let Some(server) =
        pod.containers.iter_mut().find(|container| container.name == SERVER_CONTAINER)
    {
        server.resources = Some(with_default_requests(server.resources.take().unwrap_or_default()));
        // For the user's own image Kubernetes' default by tag applies, as the user expects.
        if server.image_pull_policy.is_none() && !own_image {
            server.image_pull_policy = Some(settings.image_pull_policy.clone());
        }
        steps.extend(has_fetch_step(object).then(|| fetch_step(server, settings)));
    }
    steps.extend(cache::redis_sidecar(cache, settings));
    if !steps.is_empty() {
        pod.init_containers.get_or_insert_default().extend(steps);
    }
    // The user provides the pull secrets for an own image; the init container uses an operator
    // image.
    let further: &[String] =
        if own_image && !has_fetch_step(object) { &[] } else { &settings.image_pull_secrets };
    pod.image_pull_secrets = pull_secrets(&pod.image_pull_secrets.unwrap_or_default(), further);
    pod
}

fn server_container(
    object: &ModelDeployment,
    settings: &PlanSettings,
    revision: &str,
    version: &str,
    digest: &str,
    mounts: Vec<VolumeMount>,
) -> Container {
    Container {
        name: SERVER_CONTAINER.to_owned(),
        image: Some(settings.runtime_image.clone()),
        args: Some(vec!["serve".to_owned()]),
        env: Some(server_environment(object, settings, revision, version, digest)),
        ports: Some(vec![container_port(HTTP.0, HTTP.1), container_port(METRICS.0, METRICS.1)]),
        readiness_probe: Some(readiness_probe(METRICS.0)),
        liveness_probe: Some(liveness_probe(METRICS.0)),
        security_context: Some(container_security()),
        // The runtime writes one line of JSON there when it cannot start; where another image does
        // not, the end of its log is better than nothing.
        termination_message_path: Some(files::TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// The init container that fetches the model, verifies it and reports its digest. It always runs
/// Slipway's program, whatever image serves the model, with the resources of the server, which does
/// not run yet.
fn fetch_step(server: &Container, settings: &PlanSettings) -> Container {
    let own = server.image.as_ref() == Some(&settings.runtime_image);
    let mut args = vec![FETCH.to_owned()];
    // The arguments of the user's own server do not apply to this program.
    args.extend(server.args.iter().flatten().skip(1).filter(|_| own).cloned());
    Container {
        name: FETCH.to_owned(),
        image: Some(settings.runtime_image.clone()),
        image_pull_policy: server
            .image_pull_policy
            .clone()
            .filter(|_| own)
            .or(Some(settings.image_pull_policy.clone())),
        args: Some(args),
        env: server.env.clone(),
        env_from: server.env_from.clone(),
        resources: server.resources.clone().map(template::init_step_resources),
        security_context: server.security_context.clone(),
        termination_message_path: server.termination_message_path.clone(),
        termination_message_policy: server.termination_message_policy.clone(),
        volume_mounts: server.volume_mounts.clone().map(without_keys),
        ..Container::default()
    }
}

/// Removes the keys, because the init container fetches data from untrusted locations.
fn without_keys(mounts: Vec<VolumeMount>) -> Vec<VolumeMount> {
    mounts.into_iter().filter(|mount| mount.name != KEYS_VOLUME).collect()
}

/// The operator's variables come first in the container, so that the user's can refer to them as
/// `$(POD_NAME)`.
fn server_environment(
    object: &ModelDeployment,
    settings: &PlanSettings,
    revision: &str,
    version: &str,
    digest: &str,
) -> Vec<EnvVar> {
    let model = &object.spec.model;
    let name = object.name_any();
    let mut all = vec![
        env_var(environment::NAMESPACE, &object.namespace().unwrap_or_default()),
        env_var(environment::MODELDEPLOYMENT, &name),
        env_var(environment::REVISION, revision),
        env_var(environment::MODEL_NAME, model.name.as_deref().unwrap_or(&name)),
        env_var(environment::MODEL_VERSION, version),
        env_var(environment::MODEL_URI, &model.uri),
        env_var(DIGEST_VARIABLE, digest),
        env_var(environment::FETCHED_RECORD, "/tmp/slipway-fetched.json"),
        env_from_field(environment::POD_NAME, "metadata.name"),
    ];
    if object.spec.template.server_image().is_none() {
        all.push(env_var(environment::UID, &object.uid().unwrap_or_default()));
        all.push(keys::keys_environment());
    }
    all.extend(batching_variable(model.batching));
    all.extend(observation_variables(&object.spec));
    all.extend(cache::cache_environment(object.spec.server.cache.as_ref()));
    all.extend(
        object
            .spec
            .queue()
            .iter()
            .flat_map(|(store, queue)| queue_environment(object, store, queue)),
    );
    // Tracing settings are defaults of the operator: the template may change or disable them.
    all.extend(tracing_env(settings));
    all
}

/// The batching policy of the spec; `None` if the model server decides.
fn batching_variable(batching: BatchingPolicy) -> Option<EnvVar> {
    let mode = match batching {
        BatchingPolicy::Auto => return None,
        BatchingPolicy::Enabled => "enabled",
        BatchingPolicy::Disabled => "disabled",
    };
    Some(env_var(environment::BATCHING, mode))
}

/// The settings for baseline and samples; empty if the spec has none, so that such pods do not
/// change.
fn observation_variables(spec: &ModelDeploymentSpec) -> Vec<EnvVar> {
    let mut all = Vec::new();
    if let Some(baseline) = &spec.model.baseline {
        all.push(env_var(environment::BASELINE_URI, &baseline.uri));
        all.push(env_var(
            environment::BASELINE_DIGEST,
            baseline.digest.as_deref().unwrap_or_default(),
        ));
    }
    if let Some(sampling) = &spec.server.sampling {
        all.push(env_var(
            environment::SAMPLE_PAYLOADS,
            &sampling.rate.fraction().unwrap_or_default().to_string(),
        ));
        all.push(env_var(environment::SAMPLE_SINK, &sampling.sink));
        if !sampling.redact_inputs.is_empty() {
            all.push(env_var(environment::SAMPLE_REDACT, &sampling.redact_inputs.join(",")));
        }
    }
    all
}

/// Adds missing requests. Kubernetes uses an existing limit as the request, so nothing is added in
/// that case.
pub(crate) fn with_default_requests(mut resources: ResourceRequirements) -> ResourceRequirements {
    for (key, value) in DEFAULT_REQUESTS {
        let limited = resources.limits.as_ref().is_some_and(|l| l.contains_key(key));
        if !limited {
            let requests = resources.requests.get_or_insert_default();
            requests.entry(key.to_owned()).or_insert_with(|| Quantity(value.to_owned()));
        }
    }
    resources
}
