//! Applies the API conventions to the output of the derive: no `nullable`, no `null` among enum
//! values, no unsigned formats. See "Primitive types" and "Nullable" in the Kubernetes API
//! conventions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    ValidationRule,
};

use crate::rules;

/// Makes `helm uninstall` keep the definition, because deleting it would delete every object of the
/// kind.
const RESOURCE_POLICY: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// Longest object name that the schema accepts. The rule on `metadata.name` has a lower limit and
/// gives its reason in the message; this bound exists because the API server estimates the cost of
/// that rule from the longest possible name. It does so only if the schema declares apiVersion,
/// kind, name and generateName.
const NAME_BOUND: i64 = 63;

/// Applies the conventions to every version of `crd`.
pub fn apply_conventions(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let (key, value) = RESOURCE_POLICY;
    crd.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            complete_root(schema);
            normalize_schema(schema);
            strip_item_defaults(schema);
            if let Some(spec) = schema.properties.as_mut().and_then(|fields| fields.get_mut("spec"))
            {
                adjust_spec(spec);
            }
            if let Some(spec) = schema.properties.as_mut().and_then(|fields| fields.get_mut("spec"))
            {
                set_bounds(spec);
            }
            rules::place_rules(schema, &[]);
        }
    }
    crd
}

/// The derive leaves the description of the kind empty, so it is copied from the description of the
/// spec.
fn complete_root(schema: &mut JSONSchemaProps) {
    let properties = schema.properties.get_or_insert_default();
    schema.description = properties.get("spec").and_then(|spec| spec.description.clone());
    for field in ["apiVersion", "kind"] {
        properties.insert(field.into(), string_schema(None));
    }
    let metadata = properties.entry("metadata".into()).or_default();
    metadata.type_ = Some("object".into());
    let names = metadata.properties.get_or_insert_default();
    for field in ["name", "generateName"] {
        names.insert(field.into(), string_schema(Some(NAME_BOUND)));
    }
}

/// Fields that had another place or unit before v1alpha1 was settled, and the message for users who
/// still set them. `[]` stands for the items of a list.
const MOVED_FIELDS: [(&str, &str); 16] = [
    (
        "runtime",
        "has become spec.template, a part of a pod template; the model server is its container 'server'",
    ),
    (
        "cache",
        "has become spec.server.cache, with its redis as sidecar, its externalRedis as redis, and mode instead of enabled",
    ),
    (
        "sampling",
        "has become spec.server.sampling, with the percentage rate instead of ratePermille",
    ),
    ("queue.redis", "has become spec.server.queue.redis"),
    ("queue.nats", "has become spec.server.queue.nats"),
    ("queue.callbacks.signingKeyFrom", "has become signingKeySecretKeyRef"),
    ("queue.worker.maxBatch", "has become maxBatchJobs"),
    ("traffic.provider", "is not used any more; leave it out"),
    ("traffic.maxRequestBytes", "has become maxRequestSize, as in 16Mi"),
    (
        "traffic.brake.failurePercent",
        "has become failureRate, as in \"50%\"; mode: Disabled turns the brake off",
    ),
    ("analysis.falseRollbackBasisPoints", "has become falseRollbackRate, as in \"1%\""),
    ("analysis.gates.[].errorRate.maxIncreaseBasisPoints", "has become maxIncrease, as in \"2%\""),
    ("analysis.gates.[].latency.quantilePercent", "has become quantile, as in \"95%\""),
    ("analysis.gates.[].latency.maxRatioPercent", "has become maxRatio, as in \"150%\""),
    ("analysis.gates.[].latency.maxIncreaseBasisPoints", "has become maxIncrease, as in \"5%\""),
    ("analysis.gates.[].accuracy.maxDropBasisPoints", "has become maxDrop, as in \"5%\""),
];

/// The moved fields that were objects; the others were numbers or strings.
const MOVED_OBJECTS: [&str; 6] =
    ["runtime", "cache", "sampling", "queue.redis", "queue.nats", "queue.callbacks.signingKeyFrom"];

fn adjust_spec(spec: &mut JSONSchemaProps) {
    for (path, message) in MOVED_FIELDS {
        refuse_moved_field(spec, path, message);
    }
    // A CEL rule instead of `required`, so that a user of the old name reads where the field moved
    // and not only that a field is missing.
    if let Some(callbacks) =
        member_schema(spec, "queue").and_then(|queue| member_schema(queue, "callbacks"))
    {
        let field = "signingKeySecretKeyRef";
        callbacks.required.iter_mut().for_each(|required| required.retain(|name| name != field));
        callbacks.x_kubernetes_validations.get_or_insert_default().push(ValidationRule {
            rule: format!("has(self.{field}) || has(self.signingKeyFrom)"),
            message: Some(format!(
                "spec.queue.callbacks.{field}: required, so that receivers can tell who calls"
            )),
            ..Default::default()
        });
    }
    let template =
        member_schema(spec, "template").and_then(|template| member_schema(template, "spec"));
    if let Some(template) = template {
        relax_pod_spec(template);
    }
    for path in CORE_TYPE_PATHS {
        let mut at = Some(&mut *spec);
        for name in path.split('.') {
            at = at.and_then(|schema| member_schema(schema, name));
        }
        if let Some(schema) = at {
            visit_children(schema, &mut strip_descriptions);
        }
    }
}

/// Paths at which the schema embeds types of Kubernetes. Their descriptions, which `kubectl
/// explain` shows for their own kinds, are removed: with them the definition would exceed the
/// annotation in which client-side apply stores it.
const CORE_TYPE_PATHS: [&str; 8] = [
    "template.spec",
    "autoscaling.metrics",
    "autoscaling.behavior",
    "queue.worker.affinity",
    "queue.worker.tolerations",
    "queue.worker.resources",
    "queue.worker.autoscaling.behavior",
    "server.cache.sidecar.resources",
];

/// Adds a rule that rejects a field that has moved.
fn refuse_moved_field(spec: &mut JSONSchemaProps, path: &str, message: &str) {
    let (parents, field) =
        path.rsplit_once('.').map_or((None, path), |(parents, field)| (Some(parents), field));
    let mut at = Some(spec);
    for name in parents.into_iter().flat_map(|parents| parents.split('.')) {
        at = at.and_then(|schema| {
            if name == "[]" { item_schema(schema) } else { member_schema(schema, name) }
        });
    }
    let Some(parent) = at else { return };
    // A rule sees only fields that have a type.
    let is_object = MOVED_OBJECTS.contains(&path);
    let refused = JSONSchemaProps {
        description: Some(format!("Refused: it {message}.")),
        type_: is_object.then(|| "object".into()),
        x_kubernetes_preserve_unknown_fields: is_object.then_some(true),
        x_kubernetes_int_or_string: (!is_object).then_some(true),
        ..Default::default()
    };
    parent.properties.get_or_insert_default().insert(field.into(), refused);
    parent.x_kubernetes_validations.get_or_insert_default().push(ValidationRule {
        rule: format!("!has(self.{field})"),
        message: Some(format!("spec.{}: {message}", path.replace(".[]", ""))),
        ..Default::default()
    });
}

fn item_schema(schema: &mut JSONSchemaProps) -> Option<&mut JSONSchemaProps> {
    match schema.items.as_mut()? {
        JSONSchemaPropsOrArray::Schema(item) => Some(item),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn member_schema<'a>(
    schema: &'a mut JSONSchemaProps,
    name: &str,
) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

fn strip_descriptions(schema: &mut JSONSchemaProps) {
    schema.description = None;
    visit_children(schema, &mut strip_descriptions);
}

/// Maximum number of containers of each kind in a template: without it the API server could not
/// estimate the cost of rules over them.
const MAX_CONTAINERS: i64 = 16;

/// Relaxes a PodSpec that is merged over another one: no field is required, and its lists are
/// merged by the keys that the core API defines, if these keys are always present.
fn relax_pod_spec(spec: &mut JSONSchemaProps) {
    spec.required = None;
    for field in ["ephemeralContainers", "nodeName"] {
        spec.properties.as_mut().map(|fields| fields.remove(field));
    }
    set_list_types(spec);
    for field in ["containers", "initContainers"] {
        if let Some(containers) = member_schema(spec, field) {
            containers.max_items = Some(MAX_CONTAINERS);
        }
    }
}

fn set_list_types(schema: &mut JSONSchemaProps) {
    for (name, field) in
        schema.properties.iter_mut().flatten().filter(|(_, field)| field.items.is_some())
    {
        let key = match name.as_str() {
            "containers" | "initContainers" | "env" | "imagePullSecrets" | "volumes"
            | "resourceClaims" | "claims" => "name",
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
    visit_children(schema, &mut set_list_types);
}

fn string_schema(max_length: Option<i64>) -> JSONSchemaProps {
    JSONSchemaProps { type_: Some("string".into()), max_length, ..Default::default() }
}

fn normalize_schema(schema: &mut JSONSchemaProps) {
    // A client that does not set a field omits it; `null` would break merge patches and apply round
    // trips.
    schema.nullable = None;
    if let Some(values) = schema.enum_.as_mut() {
        values.retain(|v| !v.0.is_null());
    }
    if schema.format.as_deref().is_some_and(|f| f.starts_with("uint")) {
        schema.format = None;
    }
    visit_children(schema, &mut normalize_schema);
}

/// Removes defaults inside the items of lists. The API server would write them into every object,
/// and a list in Git would never equal the list in the cluster again. The operator applies the same
/// defaults.
fn strip_item_defaults(schema: &mut JSONSchemaProps) {
    fn strip_default(schema: &mut JSONSchemaProps) {
        schema.default = None;
        visit_children(schema, &mut strip_default);
    }
    if let Some(item) = item_schema(schema) {
        strip_default(item);
    }
    visit_children(schema, &mut strip_item_defaults);
}

/// Bounds for fields without one, mainly those of Kubernetes' own types: length of a string (a
/// script in an argument may be long), items of a list, members of a map. They do not bound the
/// object as a whole, which a schema cannot express; the operator has such a bound.
const MAX_LENGTH: i64 = 16_384;
const MAX_ITEMS: i64 = 128;
const MAX_MEMBERS: i64 = 64;

fn set_bounds(schema: &mut JSONSchemaProps) {
    let is_number_or_string = schema.x_kubernetes_int_or_string == Some(true);
    match schema.type_.as_deref() {
        Some("string") if schema.enum_.is_none() => _ = schema.max_length.get_or_insert(MAX_LENGTH),
        Some("array") => _ = schema.max_items.get_or_insert(MAX_ITEMS),
        Some("object") if schema.additional_properties.is_some() => {
            schema.max_properties.get_or_insert(MAX_MEMBERS);
        }
        // No quantity or port is longer.
        None if is_number_or_string => _ = schema.max_length.get_or_insert(64),
        _ => {}
    }
    visit_children(schema, &mut set_bounds);
}

/// Calls `visit` for each direct child of a schema.
fn visit_children(schema: &mut JSONSchemaProps, visit: &mut impl FnMut(&mut JSONSchemaProps)) {
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
