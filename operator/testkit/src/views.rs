//! Views of objects as they are observed after an apply.

use std::collections::BTreeMap;

use jiff::Timestamp;
use slipway_core::fields;
use slipway_core::marks::RevisionMarks;
use slipway_core::observed::{ModelDigest, ObjectView, ReplicaSetView};
use slipway_crds::labels;
use slipway_objects::desired::DesiredObject;
use slipway_objects::{container_images, is_shared};

/// The view of an object that was just applied for the ModelDeployment with the UID `controller`.
pub fn applied_object(desired: &DesiredObject, uid: String, controller: String) -> ObjectView {
    let owners = desired.metadata().owner_references.iter().flatten();
    ObjectView {
        uid,
        applied_hash: desired.applied_hash().to_owned(),
        managed_fields: fields::fields_after_apply(desired),
        owners: owners.map(|owner| owner.uid.clone()).collect(),
        controller: (!is_shared(desired)).then_some(controller),
        failure: String::new(),
        desired_replicas: None,
        rolled_out: false,
    }
}

/// The view of a ReplicaSet that was just created, without pods; `None` for an object of another
/// kind.
pub fn applied_replica_set(
    desired: &DesiredObject,
    uid: String,
    created_at: Timestamp,
) -> Option<ReplicaSetView> {
    let DesiredObject::ReplicaSet(set) = desired else { return None };
    let text = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    let metadata = &set.metadata;
    let digest = metadata.annotations.as_ref().and_then(|all| all.get(labels::MODEL_DIGEST));
    Some(ReplicaSetView {
        name: desired.name().to_owned(),
        uid,
        revision: text(&metadata.labels, labels::REVISION),
        version: text(&metadata.annotations, labels::VERSION),
        digest: ModelDigest::from_annotation(digest.map(String::as_str)),
        failure: String::new(),
        marks: RevisionMarks::default(),
        created_at,
        desired: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
        current: 0,
        ready: 0,
        available: 0,
        is_observed: false,
        owned: true,
        orphaned: false,
        applied_hash: desired.applied_hash().to_owned(),
        images: container_images(set),
        managed_fields: fields::fields_after_apply(desired),
        deleting: false,
    })
}
