//! Reads the status of a ModelDeployment.

use std::collections::BTreeMap;

use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

/// Name of a ModelDeployment.
pub fn deployment_name(object: &ModelDeployment) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// The stable revision; empty when there is none.
pub fn stable_revision(status: &ModelDeploymentStatus) -> String {
    status.stable.as_ref().map(|stable| stable.revision.clone()).unwrap_or_default()
}

/// The candidate's revision; empty when there is none.
pub fn candidate_revision(status: &ModelDeploymentStatus) -> String {
    status.candidate.as_ref().map(|candidate| candidate.revision.clone()).unwrap_or_default()
}

/// The weights by revision, in thousandths.
pub fn revision_weights(status: &ModelDeploymentStatus) -> BTreeMap<String, i32> {
    let backends = status.traffic.iter().flat_map(|traffic| &traffic.backends);
    backends.map(|backend| (backend.revision.clone(), backend.weight_permille)).collect()
}

/// Checks the condition Ready; the error is its reason.
pub fn check_ready(status: &ModelDeploymentStatus) -> Result<(), String> {
    match find_condition(status, "Ready") {
        Some(("True", _)) => Ok(()),
        _ => Err(describe_status(status)),
    }
}

/// Status and reason of a condition.
pub fn find_condition<'a>(
    status: &'a ModelDeploymentStatus,
    kind: &str,
) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.as_str(), found.reason.as_str()))
}

/// A status in one line, for the message of a wait that times out.
pub fn describe_status(status: &ModelDeploymentStatus) -> String {
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| {
            format!(
                "{}={} {}: {}",
                condition.type_, condition.status, condition.reason, condition.message
            )
        })
        .collect();
    let version = |revision: &Option<slipway_crds::v1alpha1::RevisionStatus>| {
        revision.as_ref().map_or_else(
            || "-".to_owned(),
            |it| format!("{} {}/{}", it.version, it.ready_replicas, it.replicas),
        )
    };
    let stage = status.rollout.as_ref().map(|rollout| (rollout.stage, rollout.step.clone()));
    format!(
        "stable {}, candidate {}, {stage:?}; {}",
        version(&status.stable),
        version(&status.candidate),
        conditions.join("; ")
    )
}
