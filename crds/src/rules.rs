//! Attaches the rules of the schema to the field that they check, as the fields' own validations
//! are.
//!
//! The message of each rule begins with the full path of its field, because a derive attribute can
//! carry no other form. This module moves the path to `fieldPath` and sets `reason` by the kind of
//! the error, so that an API server prints `spec.a.b: Forbidden: …` without repeating the path.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};

/// Places the rules of a schema and of everything inside it. `path` is the path of the schema,
/// without the indices of lists.
pub(crate) fn place_rules(schema: &mut JSONSchemaProps, path: &[String]) {
    let mut rules = schema.x_kubernetes_validations.take();
    for rule in rules.iter_mut().flatten() {
        place_rule(rule, schema, path);
    }
    schema.x_kubernetes_validations = rules;
    for (name, field) in schema.properties.iter_mut().flatten() {
        place_rules(field, &[path, std::slice::from_ref(name)].concat());
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(item)) => place_rules(item, path),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            items.iter_mut().for_each(|item| place_rules(item, path))
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(additional)) = schema.additional_properties.as_mut() {
        place_rules(additional, path);
    }
}

fn place_rule(rule: &mut ValidationRule, schema: &JSONSchemaProps, path: &[String]) {
    let Some((field, text)) = rule.message.as_deref().and_then(|message| message.split_once(": "))
    else {
        return;
    };
    let field: Vec<&str> = field.split('.').collect();
    if field.len() < path.len() || path.iter().zip(&field).any(|(own, named)| own != named) {
        return;
    }
    let (mut at, mut known) = (Some(schema), 0);
    let below = field.get(path.len()..).unwrap_or_default();
    for name in below {
        at = at.and_then(|schema| schema.properties.as_ref()?.get(*name));
        known += usize::from(at.is_some());
    }
    let (found, rest) = below.split_at(known);
    let text =
        if rest.is_empty() { text.to_owned() } else { format!("{}: {text}", rest.join(".")) };
    rule.reason = Some(rule_reason(&text).to_owned());
    rule.field_path = (!found.is_empty()).then(|| format!(".{}", found.join(".")));
    rule.message = Some(text);
}

fn rule_reason(text: &str) -> &'static str {
    let forbidden = ["only allowed", "has become", "is not used any more", "cannot change"];
    if text.starts_with("required") || text.starts_with("give ") || text.starts_with("needs one") {
        "FieldValueRequired"
    } else if forbidden.iter().any(|word| text.contains(word)) {
        "FieldValueForbidden"
    } else {
        "FieldValueInvalid"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(message: &str, at: &[&str]) -> ValidationRule {
        let inner = JSONSchemaProps { type_: Some("string".into()), ..JSONSchemaProps::default() };
        let list = JSONSchemaProps {
            items: Some(JSONSchemaPropsOrArray::Schema(Box::new(inner.clone()))),
            ..JSONSchemaProps::default()
        };
        let properties = [("a".to_owned(), inner), ("list".to_owned(), list)].into();
        let schema = JSONSchemaProps { properties: Some(properties), ..JSONSchemaProps::default() };
        let mut rule =
            ValidationRule { message: Some(message.to_owned()), ..ValidationRule::default() };
        place_rule(
            &mut rule,
            &schema,
            &at.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        );
        rule
    }

    #[test]
    fn the_path_of_a_message_becomes_the_path_of_its_rule() {
        let split = |message: &str| {
            let rule = placed(message, &["spec", "x"]);
            (rule.field_path.unwrap_or_default(), rule.message.unwrap_or_default())
        };
        assert_eq!(split("spec.x.a: must be 1"), (".a".into(), "must be 1".into()));
        assert_eq!(split("spec.x: must be 1"), (String::new(), "must be 1".into()));
        assert_eq!(
            split("spec.x.list[b].c: must be 1"),
            (String::new(), "list[b].c: must be 1".into())
        );
        assert_eq!(
            split("spec.y: must be 1"),
            (String::new(), "spec.y: must be 1".into()),
            "not below it"
        );
    }

    #[test]
    fn reasons_say_what_kind_of_mistake_it_is() {
        let reason =
            |text: &str| placed(&format!("spec.x.a: {text}"), &["spec", "x"]).reason.unwrap();
        assert_eq!(reason("required when b is given"), "FieldValueRequired");
        assert_eq!(reason("only allowed with b"), "FieldValueForbidden");
        assert_eq!(reason("has become spec.y"), "FieldValueForbidden");
        assert_eq!(reason("must be 1"), "FieldValueInvalid");
    }
}
