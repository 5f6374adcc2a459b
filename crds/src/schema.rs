//! API conventions applied to what the derive emits: no `nullable`, no `null` among enum values, no unsigned formats.
//! See "Primitive types" and "Nullable" in the Kubernetes API conventions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
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
            if let Some(spec) = schema.properties.as_mut().and_then(|fields| fields.get_mut("spec")) {
                of_spec(spec);
            }
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

/// Members of the spec that had another place before v1alpha1 was settled, and what is said to those who still fill them.
const MOVED: [(&str, &str); 1] =
    [("runtime", "has become spec.template, a part of a pod template; the model server is its container 'server'")];

fn of_spec(spec: &mut JSONSchemaProps) {
    for (field, message) in MOVED {
        let refused = JSONSchemaProps {
            type_: Some("object".into()),
            description: Some("Not used any more.".into()),
            x_kubernetes_preserve_unknown_fields: Some(true),
            ..Default::default()
        };
        spec.properties.get_or_insert_default().insert(field.into(), refused);
        spec.x_kubernetes_validations.get_or_insert_default().push(ValidationRule {
            rule: format!("!has(self.{field})"),
            message: Some(format!("spec.{field}: {message}")),
            ..Default::default()
        });
    }
    let template = member(spec, "template").and_then(|template| member(template, "spec"));
    if let Some(template) = template {
        pod_spec(template);
    }
    for path in CORE {
        let mut at = Some(&mut *spec);
        for name in path.split('.') {
            at = at.and_then(|schema| member(schema, name));
        }
        if let Some(schema) = at {
            children(schema, &mut undescribed);
        }
    }
}

/// Where the schema embeds types of Kubernetes, whose descriptions are those of `kubectl explain` for their own kinds. With them the definition would be larger than
/// the annotation in which client-side apply keeps it.
const CORE: [&str; 9] = [
    "template.spec",
    "autoscaling.metrics",
    "autoscaling.behavior",
    "queue.worker.affinity",
    "queue.worker.tolerations",
    "queue.worker.resources",
    "queue.worker.autoscaling.behavior",
    "cache.redis.resources",
    "cache.externalRedis.secretKeyRef",
];

fn member<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

fn undescribed(schema: &mut JSONSchemaProps) {
    schema.description = None;
    children(schema, &mut undescribed);
}

/// Most containers of each kind in a template: rules over them have a cost that the apiserver can estimate.
const MAX_CONTAINERS: i64 = 16;

/// A PodSpec that is merged over another one: nothing is required of it, and its lists are merged by the keys that core gives them, as far as these keys
/// are always there.
fn pod_spec(spec: &mut JSONSchemaProps) {
    spec.required = None;
    for field in ["ephemeralContainers", "nodeName"] {
        spec.properties.as_mut().map(|fields| fields.remove(field));
    }
    list_types(spec);
    for field in ["containers", "initContainers"] {
        if let Some(containers) = member(spec, field) {
            containers.max_items = Some(MAX_CONTAINERS);
        }
    }
}

fn list_types(schema: &mut JSONSchemaProps) {
    for (name, field) in schema.properties.iter_mut().flatten().filter(|(_, field)| field.items.is_some()) {
        let key = match name.as_str() {
            "containers" | "initContainers" | "env" | "imagePullSecrets" | "volumes" | "resourceClaims" | "claims" => {
                "name"
            }
            "volumeMounts" => "mountPath",
            "volumeDevices" => "devicePath",
            "hostAliases" => "ip",
            _ => {
                field.x_kubernetes_list_type = Some("atomic".into());
                continue;
            }
        };
        field.x_kubernetes_list_type = Some("map".into());
        field.x_kubernetes_list_map_keys = Some(vec![key.into()]);
    }
    children(schema, &mut list_types);
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
    children(schema, &mut walk);
}

/// Does the same to all that is in a schema.
fn children(schema: &mut JSONSchemaProps, visit: &mut impl FnMut(&mut JSONSchemaProps)) {
    schema.properties.iter_mut().flat_map(|fields| fields.values_mut()).for_each(&mut *visit);
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(item)) => visit(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(&mut *visit),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(additional)) = schema.additional_properties.as_mut() {
        visit(additional);
    }
    for list in [&mut schema.all_of, &mut schema.any_of, &mut schema.one_of].into_iter().flatten() {
        list.iter_mut().for_each(&mut *visit);
    }
}
