//! Which fields of an object are still ours.
//!
//! Under server-side apply the API server keeps, for every field manager, the fields that it set
//! last. Whoever changes or removes one of them, by whatever verb, takes it out of our entry; what
//! others add, what the server defaults, and what an autoscaler or a controller writes is not in
//! it. So whether an object is as we applied it can be told from its metadata alone, and is also
//! known of what was changed while no operator ran.

use std::sync::Arc;

use serde_json::{Map, Value};
use slipway_crds::labels::APPLIED;
use slipway_objects::ObjectTarget;
use slipway_objects::desired::DesiredObject;
use slipway_objects::reserved::DIGEST_VARIABLE;

use crate::event::PlannedEvent;
use crate::text::clip_message;

/// What the API server says of who wrote an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedFields {
    /// Our entry as `fieldsV1`, without owner references; null: there are entries, and none is
    /// ours. Nothing: the server does not tell.
    pub fields: Option<Arc<Value>>,
    /// The field manager of the newest change by somebody else.
    pub changed_by: Option<String>,
}

/// What somebody else did to one of our objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignChange {
    /// It is gone.
    Removed,
    /// A field of ours is not ours any more.
    Changed {
        /// Which, as a path; empty: all of them.
        field: String,
        /// The field manager that wrote last, where the API server tells.
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
    /// The first field that we mean and do not own any more.
    pub fn lost_field(&self, wanted: &Value) -> Option<String> {
        let owned = self.fields.as_deref()?;
        let mut path = Vec::new();
        is_lost(wanted, owned, &mut path).then(|| path.join("."))
    }

    /// Whether the stamp is not what we wrote: then its difference is no news of ours.
    pub fn is_applied_hash_lost(&self) -> bool {
        let key = format!("f:{APPLIED}");
        self.fields
            .as_deref()
            .is_some_and(|owned| owned["f:metadata"]["f:annotations"][key].is_null())
    }
}

/// What of an object is compared: not its identity, not its owners (a view knows them), and of a
/// ReplicaSet not what is written by other managers of ours later: its size, and the digest that
/// its first pod told.
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

/// The entry that the API server would keep for an object that was just applied, with every list as
/// one field: for tests and the simulator.
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

/// Looks for something of `wanted` that is not in `owned`; `path` then leads there. An entry
/// without anything below owns all that is below.
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
        // A scalar is owned with its name, whatever else stands there.
        _ => false,
    }
}

/// Items of a list that is merged are found by their keys (`k:{"name":"http"}`), of which some may
/// be defaults that we do not name, or by their value (`v:"x"`).
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

    /// As an API server keeps it for a Service with a port, of which the protocol was not named.
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
