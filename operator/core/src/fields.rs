//! Detects which fields of an object other clients changed.
//!
//! With server-side apply the API server records, for every field manager, the fields that it set
//! last. A client that changes or removes one of these fields, by any verb, removes it from the
//! operator's entry. Fields that other clients add, that the server defaults, or that an autoscaler
//! or a controller writes are not in that entry. So the metadata of an object alone shows whether
//! it is as the operator applied it, and this includes changes made while no operator ran.

use std::sync::Arc;

use serde_json::{Map, Value};
use slipway_crds::labels::APPLIED;
use slipway_objects::ObjectTarget;
use slipway_objects::desired::DesiredObject;
use slipway_objects::reserved::DIGEST_VARIABLE;

use crate::event::PlannedEvent;
use crate::text::clip_message;

/// What the API server records about the writers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedFields {
    /// The operator's entry as `fieldsV1`, without owner references. Null if there are entries,
    /// but none of the operator. `None` if the server reports no entries.
    pub fields: Option<Arc<Value>>,
    /// The field manager of the newest change by another client.
    pub changed_by: Option<String>,
}

/// A change by another client to an object of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignChange {
    /// The object was deleted.
    Removed,
    /// The operator no longer owns one of its fields.
    Changed {
        /// Path of the field; empty for all fields.
        field: String,
        /// The field manager of the last write, if the API server reports it.
        by: Option<String>,
    },
}

impl ForeignChange {
    /// For people, once it was put back.
    pub fn to_event(&self, target: &ObjectTarget) -> PlannedEvent {
        let note = match self {
            Self::Removed => format!("{target} was removed; it is made again"),
            Self::Changed { field, by } => {
                let what = if field.is_empty() {
                    target.to_string()
                } else {
                    format!("{target}: {field}")
                };
                let who = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
                format!("{what} was changed{who}; it is put back")
            }
        };
        PlannedEvent {
            warning: true,
            reason: "ChildRestored".to_owned(),
            action: "Restore".to_owned(),
            note: clip_message(&note),
        }
    }
}

impl ManagedFields {
    /// The first field of `wanted` that the operator does not own any more.
    pub fn lost_field(&self, wanted: &Value) -> Option<String> {
        let owned = self.fields.as_deref()?;
        let mut path = Vec::new();
        is_lost(wanted, owned, &mut path).then(|| path.join("."))
    }

    /// Whether another client wrote the annotation with the applied hash. A difference of the hash
    /// then does not indicate that the desired object changed.
    pub fn is_applied_hash_lost(&self) -> bool {
        let key = format!("f:{APPLIED}");
        self.fields
            .as_deref()
            .is_some_and(|owned| owned["f:metadata"]["f:annotations"][key].is_null())
    }
}

/// The fields of an object that are compared. Excluded are its identity, its owners (views contain
/// them), and the fields of a ReplicaSet that the operator writes later with other field managers:
/// its size, and the digest that its first pod reported.
pub fn compared_fields(desired: &DesiredObject) -> Value {
    let mut value = desired.to_json();
    for key in ["apiVersion", "kind", "status"] {
        remove_key(&mut value, key);
    }
    for key in ["name", "namespace", "ownerReferences"] {
        remove_key(&mut value["metadata"], key);
    }
    if let DesiredObject::ReplicaSet(_) = desired {
        remove_key(&mut value["spec"], "replicas");
        remove_key(&mut value["metadata"]["annotations"], slipway_crds::labels::MODEL_DIGEST);
        let pod = &mut value["spec"]["template"]["spec"];
        for containers in ["containers", "initContainers"] {
            let containers = pod.get_mut(containers).and_then(Value::as_array_mut);
            let variables = containers
                .into_iter()
                .flatten()
                .filter_map(|it| it.get_mut("env")?.as_array_mut())
                .flatten();
            for variable in variables.filter(|it| it["name"] == DIGEST_VARIABLE) {
                remove_key(variable, "value");
            }
        }
    }
    value
}

fn remove_key(value: &mut Value, key: &str) {
    if let Some(object) = value.as_object_mut() {
        object.remove(key);
    }
}

/// The entry that the API server would record for an object that was just applied, with every list
/// as one field; for tests and the simulator.
pub fn fields_after_apply(desired: &DesiredObject) -> ManagedFields {
    ManagedFields {
        fields: Some(Arc::new(fields_entry(&compared_fields(desired)))),
        changed_by: None,
    }
}

fn fields_entry(value: &Value) -> Value {
    let fields = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (format!("f:{key}"), fields_entry(value)));
    Value::Object(fields.collect())
}

/// Searches for a part of `wanted` that is not in `owned`; `path` then leads to it. An empty entry
/// owns everything below it.
fn is_lost(wanted: &Value, owned: &Value, path: &mut Vec<String>) -> bool {
    let Some(owned) = owned.as_object() else { return true };
    if owned.is_empty() {
        return false;
    }
    match wanted {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            path.push(key.clone());
            let lost =
                owned.get(&format!("f:{key}")).is_none_or(|owned| is_lost(value, owned, path));
            if !lost {
                path.pop();
            }
            lost
        }),
        Value::Array(items) => items.iter().any(|item| is_item_lost(item, owned, path)),
        // Ownership of a scalar is recorded by its name, whatever its value.
        _ => false,
    }
}

/// Items of a merged list are identified by their keys (`k:{"name":"http"}`), some of which may be
/// defaults that `wanted` does not contain, or by their value (`v:"x"`).
fn is_item_lost(item: &Value, owned: &Map<String, Value>, path: &mut Vec<String>) -> bool {
    let is_it = |key: &str| {
        if let Some(keys) =
            key.strip_prefix("k:").and_then(|keys| serde_json::from_str::<Map<_, _>>(keys).ok())
        {
            return keys.iter().all(|(name, value)| item.get(name).is_none_or(|it| it == value));
        }
        key.strip_prefix("v:")
            .is_some_and(|value| serde_json::from_str::<Value>(value).is_ok_and(|it| it == *item))
    };
    match owned.iter().find(|(key, _)| is_it(key)) {
        Some((_, owned)) => is_lost(item, owned, path),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The entry of an API server for a Service with a port whose protocol was not set.
    fn owned() -> Value {
        json!({
            "f:metadata": { "f:annotations": { "f:ml.slipway.dev/applied": {} }, "f:labels": { "f:a": {} } },
            "f:spec": {
                "f:ports": { "k:{\"port\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:name": {}, "f:port": {} } },
                "f:selector": {}, "f:finalizers": { "v:\"keep\"": {} }
            }
        })
    }

    fn wanted() -> Value {
        json!({
            "metadata": { "annotations": { "ml.slipway.dev/applied": "x" }, "labels": { "a": "1" } },
            "spec": { "ports": [{ "port": 80, "name": "http" }], "selector": { "any": "thing" }, "finalizers": ["keep"] }
        })
    }

    fn lost(owned: Value) -> Option<String> {
        ManagedFields { fields: Some(Arc::new(owned)), changed_by: None }.lost_field(&wanted())
    }

    fn without(pointer: &str, key: &str) -> Value {
        let mut owned = owned();
        owned.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap().remove(key).unwrap();
        owned
    }

    #[test]
    fn what_is_owned_whole_is_not_lost() {
        assert_eq!(lost(owned()), None);
        let mut more = owned();
        more["f:spec"]["f:type"] = json!({});
        assert_eq!(lost(more), None, "what we own besides is no matter");
        assert_eq!(
            ManagedFields::default().lost_field(&wanted()),
            None,
            "the server does not tell"
        );
        assert!(!ManagedFields::default().is_applied_hash_lost());
    }

    #[test]
    fn what_somebody_took_is_named() {
        assert_eq!(lost(Value::Null).as_deref(), Some(""));
        assert_eq!(lost(without("/f:spec", "f:selector")).as_deref(), Some("spec.selector"));
        let mut labels = without("/f:metadata/f:labels", "f:a");
        labels["f:metadata"]["f:labels"]["f:b"] = json!({});
        assert_eq!(lost(labels).as_deref(), Some("metadata.labels.a"));
        let port = "/f:spec/f:ports/k:{\"port\":80,\"protocol\":\"TCP\"}";
        assert_eq!(lost(without(port, "f:name")).as_deref(), Some("spec.ports.name"));
        let mut other = without("/f:spec/f:ports", "k:{\"port\":80,\"protocol\":\"TCP\"}");
        other["f:spec"]["f:ports"]["k:{\"port\":81,\"protocol\":\"TCP\"}"] = json!({});
        assert_eq!(lost(other).as_deref(), Some("spec.ports"));
        let mut value = without("/f:spec/f:finalizers", "v:\"keep\"");
        value["f:spec"]["f:finalizers"]["v:\"other\""] = json!({});
        assert_eq!(lost(value).as_deref(), Some("spec.finalizers"));
        let unstamped = without("/f:metadata/f:annotations", "f:ml.slipway.dev/applied");
        assert!(
            ManagedFields { fields: Some(Arc::new(unstamped)), changed_by: None }
                .is_applied_hash_lost()
        );
    }
}
