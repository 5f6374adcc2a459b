//! Determines who wrote the fields of an object, from `metadata.managedFields`.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use kube::ResourceExt;
use parking_lot::Mutex;
use serde_json::Value;
use slipway_core::fields::ManagedFields;
use slipway_crds::labels::MANAGER;

use crate::field_managers::{
    DIGEST_MANAGER, HANDOVER_MANAGER, MARK_MANAGER, OWNERS_MANAGER, SCALE_MANAGER,
};

/// The operator's own field managers: their writes do not count as changes by others.
const OWN_MANAGERS: [&str; 6] =
    [MANAGER, SCALE_MANAGER, DIGEST_MANAGER, MARK_MANAGER, OWNERS_MANAGER, HANDOVER_MANAGER];
/// Minimum number of sets before unreferenced ones are removed.
const MIN_SWEEP_SETS: usize = 64;

/// Sets of managed fields, each stored once: nearly all objects of a kind have the same set, and
/// there may be a hundred thousand objects.
#[derive(Default)]
pub struct FieldSets {
    inner: Mutex<FieldSetIndex>,
}

#[derive(Default)]
struct FieldSetIndex {
    by_hash: HashMap<u64, Weak<Value>>,
    sweep_at: usize,
}

impl FieldSets {
    /// The managed fields of an object according to its metadata. An object without entries comes
    /// from a server, or through a proxy, that does not report them.
    pub fn managed_fields(&self, object: &impl ResourceExt) -> ManagedFields {
        let entries = object.managed_fields();
        if entries.is_empty() {
            return ManagedFields::default();
        }
        let ours = entries.iter().find(|entry| {
            let applied =
                entry.operation.as_deref() == Some("Apply") && entry.subresource.is_none();
            applied && entry.manager.as_deref() == Some(MANAGER)
        });
        let fields = ours
            .and_then(|entry| entry.fields_v1.as_ref())
            .map_or(Value::Null, |fields| without_owners(&fields.0));
        let others = entries.iter().filter(|entry| {
            // Controllers write statuses all the time, and the operator applies none of them.
            entry.subresource.as_deref() != Some("status")
                && !OWN_MANAGERS.contains(&entry.manager.as_deref().unwrap_or_default())
        });
        let newest = others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
        let changed_by = newest.and_then(|entry| entry.manager.clone());
        ManagedFields { fields: Some(self.intern(fields)), changed_by }
    }

    fn intern(&self, fields: Value) -> Arc<Value> {
        let mut hasher = DefaultHasher::new();
        fields.hash(&mut hasher);
        let hash = hasher.finish();
        let mut inner = self.inner.lock();
        if let Some(known) =
            inner.by_hash.get(&hash).and_then(Weak::upgrade).filter(|known| **known == fields)
        {
            return known;
        }
        if inner.by_hash.len() >= inner.sweep_at.max(MIN_SWEEP_SETS) {
            inner.by_hash.retain(|_, set| set.strong_count() > 0);
            inner.sweep_at = inner.by_hash.len().saturating_mul(2);
        }
        let shared = Arc::new(fields);
        inner.by_hash.insert(hash, Arc::downgrade(&shared));
        shared
    }
}

/// Removes the owner references, which views contain by UID: with them, every object would have a
/// different set.
fn without_owners(fields: &Value) -> Value {
    let mut fields = fields.clone();
    if let Some(metadata) = fields.get_mut("f:metadata").and_then(Value::as_object_mut) {
        metadata.remove("f:ownerReferences");
    }
    fields
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(entries: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "m", "managedFields": entries}}))
            .unwrap()
    }

    fn entry(
        manager: &str,
        operation: &str,
        subresource: Option<&str>,
        second: u32,
        fields: Value,
    ) -> Value {
        let mut entry = json!({
            "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": format!("2026-01-01T00:00:{second:02}Z"), "fieldsV1": fields
        });
        if let Some(subresource) = subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    #[test]
    fn our_entry_and_the_newest_other_writer_are_found() {
        let sets = FieldSets::default();
        let owned = json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}}}});
        let object = service(json!([
            entry("slipway", "Apply", None, 1, owned),
            entry("slipway", "Update", None, 2, json!({"f:spec": {}})),
            entry("slipway-owners", "Update", None, 8, json!({})),
            entry("kube-controller-manager", "Update", Some("status"), 9, json!({})),
            entry("kubectl-edit", "Update", None, 5, json!({})),
            entry("kubectl", "Update", Some("scale"), 6, json!({})),
        ]));
        let managed = sets.managed_fields(&object);
        assert_eq!(
            managed.fields.as_deref(),
            Some(&json!({"f:metadata": {"f:labels": {"f:a": {}}}}))
        );
        assert_eq!(managed.changed_by.as_deref(), Some("kubectl"));
        assert_eq!(
            sets.managed_fields(&service(json!([]))),
            ManagedFields::default(),
            "the server does not tell"
        );
        let foreign =
            sets.managed_fields(&service(json!([entry("helm", "Update", None, 1, json!({}))])));
        assert_eq!(foreign.fields.as_deref(), Some(&Value::Null), "nothing is ours");
    }

    #[test]
    fn equal_sets_are_kept_once_and_forgotten_with_their_views() {
        let sets = FieldSets::default();
        let of = |n: usize| {
            sets.managed_fields(&service(json!([entry(
                "slipway",
                "Apply",
                None,
                1,
                json!({"f:x": {"f:n": {"n": n}}})
            )])))
        };
        let (one, two) = (of(0).fields.unwrap(), of(0).fields.unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        for n in 0..10 * MIN_SWEEP_SETS {
            of(n);
        }
        assert!(
            sets.inner.lock().by_hash.len() <= 2 * MIN_SWEEP_SETS,
            "sets that nobody has are dropped"
        );
        assert!(Arc::ptr_eq(&one, &of(0).fields.unwrap()), "what a view has stays");
    }
}
