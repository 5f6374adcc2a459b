//! Converts objects to cached views. All functions are pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;
use slipway_core::marks::RevisionMarks;
use slipway_core::observed::{ModelDigest, ObjectView, ReplicaSetView};
use slipway_crds::labels;
use slipway_objects::container_images;

use crate::field_sets::FieldSets;

/// Longest cached message of a ReplicaSet or Deployment.
const MESSAGE_CHARS: usize = 1024;

/// A cached ReplicaSet. It contains the UID of the controller because ownership depends on the
/// ModelDeployment that is reconciled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedReplicaSet {
    /// The view; `owned` is not set.
    pub view: ReplicaSetView,
    /// UID of its controller.
    pub controller: Option<String>,
}

/// The view of a ReplicaSet; `None` without the revision label.
pub fn cached_replica_set(object: &ReplicaSet, fields: &FieldSets) -> Option<CachedReplicaSet> {
    let status = object.status.as_ref();
    let view = ReplicaSetView {
        name: object.name_any(),
        uid: object.uid()?,
        revision: object.labels().get(labels::REVISION)?.clone(),
        failure: replica_failure(
            status
                .and_then(|s| s.conditions.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|c| (&c.type_, &c.status, &c.message)),
        ),
        version: object.annotations().get(labels::VERSION).cloned().unwrap_or_default(),
        digest: ModelDigest::from_annotation(
            object.annotations().get(labels::MODEL_DIGEST).map(String::as_str),
        ),
        marks: RevisionMarks::from_annotations(object.annotations()),
        created_at: object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        desired: object.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
        current: status.map_or(0, |s| s.replicas),
        ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
        available: status.and_then(|s| s.available_replicas).unwrap_or(0),
        is_observed: status.and_then(|s| s.observed_generation) >= object.metadata.generation,
        owned: false,
        orphaned: false,
        applied_hash: object.annotations().get(labels::APPLIED).cloned().unwrap_or_default(),
        images: container_images(object),
        managed_fields: fields.managed_fields(object),
        deleting: object.metadata.deletion_timestamp.is_some(),
    };
    Some(CachedReplicaSet { view, controller: controller_uid(object) })
}

fn controller_uid(object: &impl ResourceExt) -> Option<String> {
    object.owner_references().iter().find(|o| o.controller == Some(true)).map(|o| o.uid.clone())
}

/// The view of any other child, from its metadata alone.
pub fn object_view(object: &impl ResourceExt, fields: &FieldSets) -> Option<ObjectView> {
    Some(ObjectView {
        uid: object.uid()?,
        applied_hash: object.annotations().get(labels::APPLIED).cloned().unwrap_or_default(),
        managed_fields: fields.managed_fields(object),
        owners: object.owner_references().iter().map(|o| o.uid.clone()).collect(),
        controller: controller_uid(object),
        failure: String::new(),
        desired_replicas: None,
        rolled_out: false,
    })
}

/// The view of an autoscaler.
pub fn autoscaler_view(object: &HorizontalPodAutoscaler, fields: &FieldSets) -> Option<ObjectView> {
    let status = object.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    // Without metrics it only repeats the current replica count.
    let speaks = conditions.iter().any(|c| c.type_ == "ScalingActive" && c.status == "True");
    let desired_replicas = status.filter(|_| speaks).map(|s| s.desired_replicas);
    Some(ObjectView { desired_replicas, ..object_view(object, fields)? })
}

/// The view of a Deployment.
pub fn deployment_view(object: &Deployment, fields: &FieldSets) -> Option<ObjectView> {
    let conditions =
        object.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let failure = replica_failure(conditions.iter().map(|c| (&c.type_, &c.status, &c.message)));
    let wanted = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let rolled_out = object.status.as_ref().is_some_and(|status| {
        let all = [status.replicas, status.updated_replicas, status.ready_replicas];
        status.observed_generation >= object.metadata.generation
            && all.iter().all(|it| it.unwrap_or(0) == wanted)
    });
    Some(ObjectView { failure, rolled_out, ..object_view(object, fields)? })
}

/// The message of the condition `ReplicaFailure` of a ReplicaSet or Deployment: why Kubernetes
/// creates no pods.
fn replica_failure<'a>(
    mut conditions: impl Iterator<Item = (&'a String, &'a String, &'a Option<String>)>,
) -> String {
    let found =
        conditions.find(|(type_, status, _)| *type_ == "ReplicaFailure" && *status == "True");
    let message = found.and_then(|(_, _, message)| message.as_deref()).unwrap_or_default();
    message.chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests;
