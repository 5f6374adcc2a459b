//! The stamp: a short hash of what was applied, kept in an annotation.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::action::{APPLIED, Desired};

/// Bytes of the digest that are kept: 2^64 is plenty against accidents, and nobody attacks their own annotation.
const KEPT: usize = 8;

/// Hash of an object as it is applied: the first 16 hex digits of sha256 over its canonical JSON, without the annotation [`APPLIED`] itself and without
/// owner references (they differ between the ModelDeployments that share a gateway, and views tell them apart), and of a ReplicaSet without its size,
/// which is not decided by what it is made from.
pub fn applied_hash(desired: &Desired) -> String {
    let mut value = desired.to_json();
    if let (Desired::ReplicaSet(_), Some(spec)) = (desired, value.get_mut("spec").and_then(Value::as_object_mut)) {
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
    hex::encode(digest.get(..KEPT).unwrap_or(&digest))
}

/// `desired` with the annotation [`APPLIED`] set to its [`applied_hash`].
pub fn stamped(mut desired: Desired) -> Desired {
    let hash = applied_hash(&desired);
    desired.metadata_mut().annotations.get_or_insert_default().insert(APPLIED.to_owned(), hash);
    desired
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
