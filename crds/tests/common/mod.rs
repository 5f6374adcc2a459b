//! The validation of an API server, without one: structure by [`structure`], rules by the CEL
//! expressions of the same schema. The e2e tests apply the same cases to a real API server.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

pub(crate) mod structure;

use std::fs;
use std::path::{Path, PathBuf};

use kube_cel::Validator;
use serde_json::Value;

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The schema of ModelDeployment as it is released.
pub(crate) fn schema() -> Value {
    let crd = serde_json::to_value(&slipway_crds::all_crds()[0]).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// All errors of `object`; empty if an API server would accept it.
pub(crate) fn problems(schema: &Value, object: &Value) -> Vec<String> {
    problems_of_update(schema, None, object)
}

/// All errors of the documents of a file, each of which replaces the one before.
pub(crate) fn problems_of_file(schema: &Value, path: &Path) -> Vec<String> {
    let documents = documents(path);
    let before = [None].into_iter().chain(documents.iter().map(Some));
    before
        .zip(&documents)
        .flat_map(|(old, object)| problems_of_update(schema, old, object))
        .collect()
}

fn problems_of_update(schema: &Value, old: Option<&Value>, object: &Value) -> Vec<String> {
    let mut problems = structure::problems(schema, object);
    if let Err(errors) = Validator::new().validate(schema, object, old) {
        let evaluated = errors.as_slice().iter().filter(|error| !only_in_a_cluster(&error.rule));
        problems.extend(evaluated.map(|error| without_indices(&error.to_string())));
    }
    problems
}

/// Converts `gates[0].name` to `gates.name`, without the dot that begins a path at the root.
fn without_indices(problem: &str) -> String {
    let parts: Vec<&str> = problem.split('[').collect();
    let index = |part: &str| {
        part.split_once(']')
            .filter(|(digits, _)| digits.parse::<usize>().is_ok())
            .map(|it| it.1.to_owned())
    };
    let rest = parts.iter().skip(1).map(|part| index(part).unwrap_or_else(|| format!("[{part}")));
    let all =
        [(*parts.first().unwrap_or(&"")).to_owned()].into_iter().chain(rest).collect::<String>();
    all.trim_start_matches('.').to_owned()
}

/// Whether a rule needs `type()`, which the CEL implementation of these tests lacks. The API server
/// of the e2e tests has it.
pub(crate) fn only_in_a_cluster(rule: &str) -> bool {
    rule.contains("type(")
}

/// `value` with the defaults of `schema` filled in, as an API server stores it.
pub(crate) fn with_defaults(schema: &Value, mut value: Value) -> Value {
    if let (Some(fields), Some(properties)) =
        (value.as_object_mut(), schema["properties"].as_object())
    {
        for (name, child) in properties {
            let field = fields.remove(name).or_else(|| child.get("default").cloned());
            if let Some(field) = field {
                fields.insert(name.clone(), with_defaults(child, field));
            }
        }
    } else if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(|item| *item = with_defaults(&schema["items"], item.take()));
    }
    value
}

/// All YAML files below `folder`, sorted.
pub(crate) fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The documents of a YAML file.
pub(crate) fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|document| {
            serde::Deserialize::deserialize(document)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

/// Every rule of `schema` and below, with the schema that has it: (path, schema, rule, message).
pub(crate) fn rules(schema: &Value) -> Vec<(String, Value, String, String)> {
    fn walk(path: &str, schema: &Value, found: &mut Vec<(String, Value, String, String)>) {
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let field = format!("{path}{}", text(rule, "fieldPath")).replace("[]", "");
            let message = format!("{}: {}", field.trim_start_matches('.'), text(rule, "message"));
            found.push((path.to_owned(), schema.clone(), text(rule, "rule"), message));
        }
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), child, found);
        }
        for key in ["items", "additionalProperties"] {
            if schema[key].is_object() {
                walk(&format!("{path}[]"), &schema[key], found);
            }
        }
    }
    let mut found = Vec::new();
    walk("", schema, &mut found);
    found
}
