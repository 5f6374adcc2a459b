//! The common part of the pods of the model server and of the gateway: the restricted Pod Security
//! Standard, probes, spreading over nodes.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    LocalObjectReference, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, Probe, SeccompProfile, SecretKeySelector, SecurityContext, Volume,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use slipway_contracts::paths;
use slipway_crds::v1alpha1::SecretKeyRef;

use crate::meta::{LabelMap, label_map, label_selector};
use crate::reserved::SCRATCH_VOLUMES;
use crate::settings::PlanSettings;

/// The user `nonroot` of distroless images.
const NONROOT: i64 = 65532;

/// Longer than the longest drain of both programs: a model server continues to serve for up to 600
/// s until its replacement is ready, and a request may take the largest
/// `spec.traffic.timeoutSeconds`, 3600 s. Both terminate as soon as they are idle, mostly after 5
/// s. The value does not follow the spec, because the number of an earlier spec must not cut off a
/// running pod, and a new number must not replace the pods.
pub(crate) const TERMINATION_GRACE_SECONDS: i64 = 600 + 3600 + 60;

/// Security context of a pod: not root, seccomp profile of the container runtime. User and group
/// ids are set only if the platform does not assign them, because such a platform rejects ids
/// outside of its range.
pub(crate) fn pod_security(settings: &PlanSettings) -> PodSecurityContext {
    let id = settings.fixed_user_ids.then_some(NONROOT);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: id,
        run_as_group: id,
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// Security context of a container: no capabilities, no privilege escalation, and only volumes are
/// writable.
pub(crate) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// The Secrets of the spec and those of the operator's settings, without duplicates.
pub(crate) fn pull_secrets(
    own: &[LocalObjectReference],
    further: &[String],
) -> Option<Vec<LocalObjectReference>> {
    let known = |name: &String| own.iter().any(|secret| secret.name == *name);
    let further = further
        .iter()
        .filter(|name| !known(name))
        .map(|name| LocalObjectReference { name: name.clone() });
    let all: Vec<_> = own.iter().cloned().chain(further).collect();
    (!all.is_empty()).then_some(all)
}

/// Readiness is checked every second, so that a pod gets traffic as soon as its model is loaded. It
/// is lost only after three failures, because one slow response of a busy pod is no reason to move
/// its load to the others.
pub(crate) fn readiness_probe(port: &str) -> Probe {
    Probe {
        period_seconds: Some(1),
        timeout_seconds: Some(2),
        failure_threshold: Some(3),
        ..http_probe(paths::READINESS, port)
    }
}

/// Liveness: only a process without a response for a minute is restarted. Loading a model does not
/// count, because `/livez` responds from the start.
pub(crate) fn liveness_probe(port: &str) -> Probe {
    Probe {
        period_seconds: Some(10),
        timeout_seconds: Some(5),
        failure_threshold: Some(6),
        ..http_probe(paths::LIVENESS, port)
    }
}

fn http_probe(path: &str, port: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

/// A named TCP port.
pub(crate) fn container_port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        // Part of the merge key of the list, which would be ambiguous without it.
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// An environment variable with a fixed value.
pub(crate) fn env_var(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

/// Environment of the OpenTelemetry SDK of both programs: the endpoint for traces and their share.
/// Empty without tracing.
pub(crate) fn tracing_env(settings: &PlanSettings) -> Vec<EnvVar> {
    let Some(tracing) = &settings.tracing else { return Vec::new() };
    let share = format!("{:.6}", f64::from(tracing.per_million) / 1e6);
    vec![
        env_var("OTEL_EXPORTER_OTLP_ENDPOINT", &tracing.endpoint),
        env_var("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        env_var("OTEL_TRACES_SAMPLER_ARG", &share),
    ]
}

/// An environment variable from a field of the pod.
pub(crate) fn env_from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// Annotations that the usual pod discovery of Prometheus reads.
pub(crate) fn scrape_annotations(port: i32) -> LabelMap {
    let port = port.to_string();
    label_map([
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", &port),
        ("prometheus.io/path", paths::METRICS),
    ])
}

/// Adds the annotation for scratch volumes, whose loss does not matter, so that a cluster
/// autoscaler may remove the node of such a pod (by default it keeps nodes with local volumes).
/// Users decide about their own volumes.
pub(crate) fn with_evictable_volumes(mut annotations: LabelMap, pod: &PodSpec) -> LabelMap {
    let ours = |volume: &&Volume| {
        volume.empty_dir.is_some() && SCRATCH_VOLUMES.contains(&volume.name.as_str())
    };
    let scratch: Vec<&str> =
        pod.volumes.iter().flatten().filter(ours).map(|volume| volume.name.as_str()).collect();
    if !scratch.is_empty() {
        annotations.insert(
            "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes".to_owned(),
            scratch.join(","),
        );
    }
    annotations
}

/// Pods that match `selector` prefer different nodes. It is only a preference, so that a single
/// node can run all of them.
pub(crate) fn spread_affinity(selector: LabelMap) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm {
                    weight: 100,
                    pod_affinity_term: PodAffinityTerm {
                        topology_key: "kubernetes.io/hostname".to_owned(),
                        label_selector: Some(label_selector(selector)),
                        ..PodAffinityTerm::default()
                    },
                },
            ]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// A variable whose value is a key of a Secret.
pub(crate) fn env_from_secret(name: &str, secret: &SecretKeyRef) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.name.clone(),
                key: secret.key.clone(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}
