//! The stamp: a short hash of what was applied, kept in an annotation.

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::action::{APPLIED, Desired};
use crate::observed::ObjectView;

/// Bytes of the digest that are kept: 2^64 is plenty against accidents, and nobody attacks their own annotation.
const KEPT: usize = 8;

/// Hash of an object as it is applied: the first 16 hex digits of sha256 over its canonical JSON, without the annotation [`APPLIED`] itself and without
/// owner references (they differ between the ModelDeployments that share a gateway; [`is_applied`] looks at them apart).
pub fn applied_hash(desired: &Desired) -> String {
    let mut value = match desired {
        Desired::ReplicaSet(object) => json(object),
        Desired::Service(object) => json(object),
        Desired::HorizontalPodAutoscaler(object) => json(object),
        Desired::PodDisruptionBudget(object) => json(object),
        Desired::ServiceAccount(object) => json(object),
        Desired::RoleBinding(object) => json(object),
        Desired::Deployment(object) => json(object),
    };
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
    hex::encode(digest.get(..KEPT).unwrap_or(&digest))
}

/// `desired` with the annotation [`APPLIED`] set to its [`applied_hash`].
pub fn stamped(mut desired: Desired) -> Desired {
    let hash = applied_hash(&desired);
    metadata_mut(&mut desired).annotations.get_or_insert_default().insert(APPLIED.to_owned(), hash);
    desired
}

/// Whether `view` is what `desired` asks for: applied with the same hash, and owned by the ModelDeployment with this UID.
pub fn is_applied(desired: &Desired, view: Option<&ObjectView>, uid: &str) -> bool {
    view.is_some_and(|v| v.owners.iter().any(|o| o == uid) && v.applied == applied_hash(desired))
}

/// JSON with the keys of every object sorted and no spaces, whatever features serde_json was compiled with.
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            separated(entries, ('{', '}'), out, |(key, value), out| {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
            });
        }
        Value::Array(items) => separated(items, ('[', ']'), out, write),
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn separated<T>(
    items: impl IntoIterator<Item = T>,
    (open, close): (char, char),
    out: &mut String,
    each: impl Fn(T, &mut String),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        each(item, out);
    }
    out.push(close);
}

fn json(object: &impl Serialize) -> Value {
    // Maps with string keys and plain data: there is nothing in these types that JSON cannot express.
    serde_json::to_value(object).unwrap_or_default()
}

fn metadata_mut(desired: &mut Desired) -> &mut ObjectMeta {
    match desired {
        Desired::ReplicaSet(object) => object.metadata_mut(),
        Desired::Service(object) => object.metadata_mut(),
        Desired::HorizontalPodAutoscaler(object) => object.metadata_mut(),
        Desired::PodDisruptionBudget(object) => object.metadata_mut(),
        Desired::ServiceAccount(object) => object.metadata_mut(),
        Desired::RoleBinding(object) => object.metadata_mut(),
        Desired::Deployment(object) => object.metadata_mut(),
    }
}
