//! Whether an API server would accept the definition: it rejects one whose rules could cost too
//! much. The estimate here is coarse; the e2e cluster installs the definition and applies the real
//! estimate.

mod common;

use common::{rules, schema};
use kube_cel::{compile_schema, estimate_rule_cost};
use regex::Regex;

#[test]
fn rules_stay_within_the_cost_budget() {
    for (path, schema, rule, _) in rules(&schema()) {
        let warnings = estimate_rule_cost(&rule, &compile_schema(&schema));
        assert!(warnings.is_empty(), "{path}: {warnings:?}");
    }
}

/// The API server assumes 3 MB for the string in an int-or-string, whatever its schema says. Within
/// a list every use of it as a string or in a comparison exceeds the budget. Only `has`, `type` and
/// `int` are cheap.
#[test]
fn int_or_strings_are_only_read_as_integers() {
    let cheap = Regex::new(r"(has|type|int)\([a-z]+\.(setWeight|min|max)\)").unwrap();
    let any = Regex::new(r"\.(setWeight|min|max)\b").unwrap();
    let mut seen = 0;
    for (path, _, rule, _) in rules(&schema()) {
        seen += any.find_iter(&rule).count();
        let rest = cheap.replace_all(&rule, "");
        assert!(!any.is_match(&rest), "{path}: {rest}");
    }
    assert!(seen > 0, "the names in this test are out of date");
}

/// Slipway's lists and strings have bounds, because otherwise the estimates would multiply by the
/// size of a request. Embedded Kubernetes types have no bounds.
#[test]
fn what_rules_loop_over_is_bounded() {
    let schema = schema();
    let spec = &schema["properties"]["spec"]["properties"];
    for list in [
        &spec["analysis"]["properties"]["gates"],
        &spec["strategy"]["properties"]["canary"]["properties"]["steps"],
        &spec["strategy"]["properties"]["blueGreen"]["properties"]["switchSteps"],
        &spec["template"]["properties"]["spec"]["properties"]["containers"],
    ] {
        assert!(list["maxItems"].as_u64().is_some_and(|most| most <= 64), "{list}");
    }
    assert!(spec["model"]["properties"]["uri"]["maxLength"].is_u64());
    assert!(schema["properties"]["metadata"]["properties"]["name"]["maxLength"].is_u64());
}
