//! The applied hash: a short hash of what was applied, stored in an annotation.

use serde_json::Value;
use sha2::{Digest, Sha256};
use slipway_crds::labels::APPLIED;

use crate::canonical_json::canonical_json;
use crate::desired::DesiredObject;

/// Length of the stored hash in bytes: 64 bits suffice against accidental collisions, and the
/// annotation is not a security boundary.
const HASH_BYTES: usize = 8;

/// Hash of an object as it is applied: the first 16 hex digits of sha256 over its canonical JSON,
/// without the annotation [`APPLIED`] itself and without owner references (they differ
/// between the ModelDeployments that share a gateway, and views tell them apart), and of a
/// ReplicaSet without its size, which is not decided by what it is made from.
pub fn applied_hash(desired: &DesiredObject) -> String {
    let mut value = desired.to_json();
    if let (DesiredObject::ReplicaSet(_), Some(spec)) =
        (desired, value.get_mut("spec").and_then(Value::as_object_mut))
    {
        spec.remove("replicas");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("ownerReferences");
        let mut nothing_left = false;
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(APPLIED);
            nothing_left = annotations.is_empty();
        }
        if nothing_left {
            metadata.remove("annotations");
        }
    }
    let digest = Sha256::digest(canonical_json(&value).as_bytes());
    hex::encode(digest.get(..HASH_BYTES).unwrap_or(&digest))
}

/// `desired` with the annotation [`APPLIED`] set to its [`applied_hash`].
pub fn with_applied_hash(mut desired: DesiredObject) -> DesiredObject {
    let hash = applied_hash(&desired);
    desired.metadata_mut().annotations.get_or_insert_default().insert(APPLIED.to_owned(), hash);
    desired
}
