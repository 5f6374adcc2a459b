//! What makes a spec invalid. The schema rejects most of it; these checks cover what CEL cannot
//! express, and CRDs that are older than the operator.

use std::collections::BTreeSet;

use kube::ResourceExt;
use slipway_crds::v1alpha1::{AnalysisMode, GateSpec, ModelDeployment};

/// The first problem, with its field and the remedy.
pub(super) fn find_problem(object: &ModelDeployment) -> Option<String> {
    check_name(&object.name_any())
        .or_else(|| {
            object
                .spec
                .model
                .uri
                .is_empty()
                .then(|| "spec.model.uri: must name the model file".to_owned())
        })
        .or_else(|| super::template::find_template_problem(&object.spec))
        .or_else(|| check_autoscaling(object))
        .or_else(|| check_queue(object))
        .or_else(|| super::amounts::find_amount_problem(&object.spec))
        .or_else(|| {
            check_gates(
                object.spec.analysis.mode,
                object.spec.analysis.gates.as_deref().unwrap_or_default(),
            )
        })
}

fn check_name(name: &str) -> Option<String> {
    let plain =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let framed = name.starts_with(|first: char| first.is_ascii_lowercase()) && !name.ends_with('-');
    let fits = !name.is_empty() && name.len() <= 40;
    // Names of the operator's own objects.
    let free = !slipway_objects::reserved::is_reserved(name);
    (!plain || !framed || !fits || !free).then(|| {
        "metadata.name: must be 1 to 40 lower-case letters, digits and '-', start with a letter, not end in '-preview' or '-worker', and not be 'slipway-gateway'".to_owned()
    })
}

fn check_autoscaling(object: &ModelDeployment) -> Option<String> {
    let autoscaling = object.spec.autoscaling.as_ref()?;
    (autoscaling.min_replicas > autoscaling.max_replicas)
        .then(|| "spec.autoscaling: minReplicas must not be greater than maxReplicas".to_owned())
}

fn check_queue(object: &ModelDeployment) -> Option<String> {
    (object.spec.queue.is_some() && object.spec.server.queue.is_none()).then(|| {
        "spec.queue: bounds of a queue that is not there; say in spec.server.queue which Redis or NATS keeps it"
            .to_owned()
    })
}

fn check_gates(mode: AnalysisMode, gates: &[GateSpec]) -> Option<String> {
    if (mode == AnalysisMode::Custom) == gates.is_empty() {
        return Some(
            "spec.analysis.gates: required when mode is Custom, and only allowed then".to_owned(),
        );
    }
    let mut names = BTreeSet::new();
    gates.iter().find_map(|gate| {
        if !names.insert(gate.name.as_str()) {
            return Some(format!(
                "spec.analysis.gates: the name '{}' is used twice; every gate needs its own",
                gate.name
            ));
        }
        slipway_judge::find_settings_problem(gate)
    })
}
