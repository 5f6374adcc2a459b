//! The part of an apiserver's structural validation that the schema uses.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

/// All violations of `schema` in `value`, as `path: violation`.
pub(crate) fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    // The API server validates metadata by its own schema; this schema bounds only two of its
    // fields.
    let mut schema = schema.clone();
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = true.into();
    check(&schema, value, String::new(), &mut found);
    found
}

fn check(schema: &Value, value: &Value, path: String, found: &mut Vec<String>) {
    let mut complain = |what: String| found.push(format!("{path}: {what}"));
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let right_type = match schema["type"].as_str() {
        _ if int_or_string => value.is_i64() || value.is_u64() || value.is_string(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !right_type {
        return complain(format!("{value} has the wrong type"));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        complain(format!("{value} is not one of {}", schema["enum"]));
    }
    let at_most = |key: &str, size: f64| schema[key].as_f64().is_none_or(|bound| size <= bound);
    let at_least = |key: &str, size: f64| schema[key].as_f64().is_none_or(|bound| size >= bound);
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            if !at_least("minimum", number) || !at_most("maximum", number) {
                complain(format!("{number} is out of range"));
            }
        }
        Value::String(text) => {
            let size = text.chars().count() as f64;
            if !at_least("minLength", size) || !at_most("maxLength", size) {
                complain(format!("length {size} is out of range"));
            }
            if schema["pattern"]
                .as_str()
                .is_some_and(|pattern| !Regex::new(pattern).unwrap().is_match(text))
            {
                complain(format!("{text:?} does not match {}", schema["pattern"]));
            }
        }
        Value::Array(items) => {
            let size = items.len() as f64;
            if !at_least("minItems", size) || !at_most("maxItems", size) {
                complain(format!("{size} items are out of range"));
            }
            if has_twins(schema, items) {
                complain("two items with the same key".into());
            }
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, format!("{path}[{index}]"), found);
            }
        }
        Value::Object(fields) => {
            let size = fields.len() as f64;
            if !at_most("maxProperties", size) {
                complain(format!("{size} entries are too many"));
            }
            let join = |name: &str| {
                if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
            };
            for name in
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
            {
                if !fields.contains_key(name) {
                    found.push(format!("{}: is required", join(name)));
                }
            }
            for (name, field) in fields {
                let known = schema["properties"].get(name).or(schema.get("additionalProperties"));
                match known {
                    Some(known) => check(known, field, join(name), found),
                    None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
                    None => found.push(format!("{}: unknown field", join(name))),
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Whether a list of type map has two items with the same key.
fn has_twins(schema: &Value, items: &[Value]) -> bool {
    let keys = schema["x-kubernetes-list-map-keys"].as_array().cloned().unwrap_or_default();
    let key_of = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => keys
            .iter()
            .map(|key| item[key.as_str().unwrap_or_default()].to_string())
            .collect::<Vec<_>>(),
        _ => vec![item.to_string()],
    };
    if !matches!(schema["x-kubernetes-list-type"].as_str(), Some("map" | "set")) {
        return false;
    }
    items.iter().map(key_of).collect::<BTreeSet<_>>().len() < items.len()
}
