//! API conventions applied to what the derive emits: no `nullable`, no `null` among enum values, no unsigned formats.
//! See "Primitive types" and "Nullable" in the Kubernetes API conventions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// What `helm uninstall` does with the definition: nothing, because every object of the kind would go with it.
const RESOURCE_POLICY: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// Longest name of an object that the schema lets through. The rule on `metadata.name` asks for less and says why; this bound is there
/// because the apiserver estimates what that rule costs from the longest possible name. It does so only where the schema declares
/// apiVersion, kind, name and generateName, all four.
const NAME_BOUND: i64 = 63;

/// Applies the conventions to every schema of `crd`.
pub fn conventional(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let (key, value) = RESOURCE_POLICY;
    crd.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            root(schema);
            walk(schema);
        }
    }
    crd
}

/// The derive cannot know what the kind is for: that stands at its spec.
fn root(schema: &mut JSONSchemaProps) {
    let properties = schema.properties.get_or_insert_default();
    schema.description = properties.get("spec").and_then(|spec| spec.description.clone());
    for field in ["apiVersion", "kind"] {
        properties.insert(field.into(), string(None));
    }
    let metadata = properties.entry("metadata".into()).or_default();
    metadata.type_ = Some("object".into());
    let names = metadata.properties.get_or_insert_default();
    for field in ["name", "generateName"] {
        names.insert(field.into(), string(Some(NAME_BOUND)));
    }
}

fn string(max_length: Option<i64>) -> JSONSchemaProps {
    JSONSchemaProps { type_: Some("string".into()), max_length, ..Default::default() }
}

fn walk(schema: &mut JSONSchemaProps) {
    // A writer that has no opinion leaves the field out; null would break merge patches and apply round trips.
    schema.nullable = None;
    if let Some(values) = schema.enum_.as_mut() {
        values.retain(|v| !v.0.is_null());
    }
    if schema.format.as_deref().is_some_and(|f| f.starts_with("uint")) {
        schema.format = None;
    }
    for child in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        walk(child);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(item)) => walk(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(walk),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(additional)) = schema.additional_properties.as_mut() {
        walk(additional);
    }
    for list in [&mut schema.all_of, &mut schema.any_of, &mut schema.one_of].into_iter().flatten() {
        list.iter_mut().for_each(walk);
    }
}
