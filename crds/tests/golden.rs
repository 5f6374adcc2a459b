//! The committed generated files equal what the types generate. A stale file is rewritten, and the
//! test fails once.

mod common;

use std::fs;

use common::{documents, root, schema};
use serde_json::{Value, json};

#[test]
fn generated_files_are_fresh() {
    let mut stale = Vec::new();
    for crd in slipway_crds::all_crds() {
        let text = slipway_crds::to_yaml(&crd).unwrap();
        let name = format!("{}.yaml", crd.spec.names.plural);
        for folder in ["crds", "charts/slipway-crds/files"] {
            let path = root().join(folder).join(&name);
            if fs::read_to_string(&path).unwrap_or_default() != text {
                fs::write(&path, &text).unwrap();
                stale.push(path);
            }
        }
    }
    assert!(
        stale.is_empty(),
        "these were stale and have been rewritten; look at the change and commit it: {stale:?}"
    );
}

#[test]
fn the_yaml_says_what_the_types_say() {
    let parsed = documents(&root().join("crds/modeldeployments.yaml")).remove(0);
    assert_eq!(parsed, serde_json::to_value(&slipway_crds::all_crds()[0]).unwrap());
}

/// The API conventions: see `schema.rs`.
#[test]
fn conventions_hold_everywhere() {
    fn walk(path: &str, value: &Value) {
        if let Some(map) = value.as_object() {
            assert!(!map.contains_key("nullable"), "{path}: nullable");
            let unsigned = map
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"));
            assert!(!unsigned, "{path}: unsigned");
            let null = map
                .get("enum")
                .and_then(Value::as_array)
                .is_some_and(|values| values.contains(&Value::Null));
            assert!(!null, "{path}: null among the values");
            map.iter().for_each(|(key, child)| walk(&format!("{path}.{key}"), child));
        } else if let Some(list) = value.as_array() {
            list.iter().for_each(|child| walk(path, child));
        }
    }
    walk("", &schema());
}

#[test]
fn the_root_says_what_the_kind_is_for() {
    let description = schema()["description"].as_str().unwrap().to_owned();
    assert!(
        description.starts_with("A model that is served at one stable address"),
        "{description}"
    );
}

#[test]
fn uninstalling_the_chart_keeps_the_definition() {
    let crd = serde_json::to_value(&slipway_crds::all_crds()[0]).unwrap();
    assert_eq!(crd["metadata"]["annotations"], json!({"helm.sh/resource-policy": "keep"}));
}

/// `kubectl explain` shows enum values without their descriptions, so the description of the field
/// must explain them.
#[test]
fn every_value_of_an_enum_is_described() {
    fn walk(path: &str, schema: &Value) {
        let described = schema["description"].as_str();
        for value in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // Types of Kubernetes have no descriptions here.
            assert!(
                described.is_none_or(|text| text.contains(value)),
                "{path}: {value} is not described"
            );
        }
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), child);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                walk(&format!("{path}[]"), &schema[inner]);
            }
        }
    }
    walk("", &schema());
}

/// The API server would write a default in the items of a list into every object, and a list in Git
/// would never equal the list in the cluster again.
#[test]
fn items_of_lists_have_no_defaults() {
    fn walk(path: &str, schema: &Value, in_a_list: bool) {
        assert!(!in_a_list || schema.get("default").is_none(), "{path} has a default");
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), child, in_a_list);
        }
        if schema["items"].is_object() {
            walk(&format!("{path}[]"), &schema["items"], true);
        }
    }
    walk("", &schema(), false);
}

/// The whole definition fits into the annotation in which client-side apply stores it, with room to
/// grow.
#[test]
fn the_definition_is_small() {
    let bytes = serde_json::to_vec(&slipway_crds::all_crds()[0]).unwrap().len();
    assert!(bytes < 150_000, "{bytes} bytes");
}

/// Without bounds a single value could make an object as large as etcd accepts. The operator limits
/// the size of the whole object.
#[test]
fn every_value_of_the_spec_is_bounded() {
    fn walk(path: &str, schema: &Value) {
        let bounded = |bound: &str| assert!(schema[bound].is_u64(), "{path} has no {bound}");
        let number_or_string = schema["x-kubernetes-int-or-string"] == true;
        match schema["type"].as_str() {
            Some("string") if !schema["enum"].is_array() => bounded("maxLength"),
            Some("array") => bounded("maxItems"),
            Some("object") if schema["additionalProperties"].is_object() => {
                bounded("maxProperties")
            }
            None if number_or_string => bounded("maxLength"),
            _ => {}
        }
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), child);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                walk(&format!("{path}[]"), &schema[inner]);
            }
        }
    }
    walk("spec", &schema()["properties"]["spec"]);
}
