//! JSON with one representation for each value.

use serde_json::Value;

/// JSON with the keys of every object sorted and no spaces, independent of the compiled features of
/// serde_json.
pub(crate) fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    out
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            write_separated(entries, ('{', '}'), out, |(key, value), out| {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_value(value, out);
            });
        }
        Value::Array(items) => write_separated(items, ('[', ']'), out, write_value),
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn write_separated<T>(
    items: impl IntoIterator<Item = T>,
    (open, close): (char, char),
    out: &mut String,
    each: impl Fn(T, &mut String),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        each(item, out);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_json_sorts_keys_and_keeps_the_order_of_lists() {
        let value = json!({"b": [3, 1, {"z": null, "a": "\"ü"}], "a": true});
        assert_eq!(canonical_json(&value), r#"{"a":true,"b":[3,1,{"a":"\"ü","z":null}]}"#);
    }
}
