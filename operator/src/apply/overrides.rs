//! Detects whether the API server stored an object as it was applied. Admission webhooks and
//! policies may change it on the way, and field ownership does not show such changes.

use serde_json::Value;

/// Path of the first field that was sent and is missing or different in the answer. Lists in the
/// answer may contain more entries than were sent. A missing field equals an empty one.
pub(crate) fn find_overridden(sent: &Value, answer: &Value) -> Option<String> {
    let mut path = Vec::new();
    has_difference(sent, answer, &mut path).then(|| path.join("."))
}

fn has_difference(sent: &Value, answer: &Value, path: &mut Vec<String>) -> bool {
    match (sent, answer) {
        (Value::Object(sent), Value::Object(answer)) => sent.iter().any(|(key, value)| {
            path.push(key.clone());
            let differs = has_difference(value, answer.get(key).unwrap_or(&Value::Null), path);
            if !differs {
                path.pop();
            }
            differs
        }),
        (Value::Array(sent), Value::Array(answer)) => sent
            .iter()
            .any(|item| answer.iter().all(|it| has_difference(item, it, &mut Vec::new()))),
        (sent, Value::Null) => !is_empty(sent),
        (sent, answer) => sent != answer && !is_same_quantity(sent, answer),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

/// The API server normalizes quantities: `0.5` becomes `500m`.
fn is_same_quantity(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::String(text) => slipway_crds::quantity::parse_quantity(text),
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    matches!((number(one), number(other)), (Some(one), Some(other)) if (one - other).abs() <= 1e-9 * one.abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_or_writes_in_its_own_way_is_no_difference() {
        let sent = json!({
            "spec": {"ports": [{"port": 80, "name": "http"}], "selector": {}, "env": [{"name": "a", "value": ""}], "limit": "0.5"}
        });
        let answer = json!({
            "kind": "Service", "spec": {
                "ports": [{"port": 1}, {"port": 80, "name": "http", "protocol": "TCP"}], "env": [{"name": "a"}], "limit": "500m"
            }
        });
        assert_eq!(find_overridden(&sent, &answer), None);
    }

    #[test]
    fn what_a_webhook_changed_or_dropped_is_found() {
        let sent = json!({"spec": {"replicas": 2, "args": ["a", "b"], "image": "ours:1"}});
        for (answer, path) in [
            (
                json!({"spec": {"replicas": 0, "args": ["a", "b"], "image": "ours:1"}}),
                "spec.replicas",
            ),
            (json!({"spec": {"replicas": 2, "args": ["a"], "image": "ours:1"}}), "spec.args"),
            (json!({"spec": {"replicas": 2, "args": ["a", "b"]}}), "spec.image"),
        ] {
            assert_eq!(find_overridden(&sent, &answer).as_deref(), Some(path));
        }
    }
}
