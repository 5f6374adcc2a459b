//! The chart grants exactly what the operator needs: the table in `rbac.rs` is compared with the
//! chart's ClusterRole and Role.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use slipway_operator::process::rbac::{self, RbacRule};

/// An RBAC rule, reduced to the compared fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Role {
    /// Missing where the template computes it.
    #[serde(default)]
    kind: String,
    #[serde(default)]
    rules: Vec<Granted>,
}

type Grants = BTreeSet<(String, String, String)>;

/// Rules of a kind of role in the chart's template. Template expressions insert only names and
/// labels, never rules.
fn chart(kind: &str) -> Grants {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../charts/slipway/templates/rbac-operator.yaml");
    let text = fs::read_to_string(path).unwrap();
    let plain: Vec<&str> = text.lines().filter(|line| !line.contains("{{")).collect();
    let documents = plain.join("\n");
    let roles =
        documents.split("\n---").map(|document| serde_yaml::from_str::<Role>(document).unwrap());
    let rules = roles.filter(|role| role.kind == kind).flat_map(|role| role.rules);
    rules
        .flat_map(|rule| {
            let (groups, resources, verbs) = (rule.api_groups, rule.resources, rule.verbs);
            let pairs = groups
                .into_iter()
                .flat_map(move |g| resources.clone().into_iter().map(move |r| (g.clone(), r)));
            pairs.flat_map(move |(g, r)| {
                verbs.clone().into_iter().map(move |v| (g.clone(), r.clone(), v))
            })
        })
        .collect()
}

fn table(rules: &[RbacRule]) -> Grants {
    let of = |rule: &RbacRule| {
        let (group, resource) = (rule.group.to_owned(), rule.resource.to_owned());
        rule.verbs.iter().map(move |verb| (group.clone(), resource.clone(), (*verb).to_owned()))
    };
    rules.iter().flat_map(of).collect()
}

#[test]
fn the_chart_grants_what_the_operator_does_and_no_more() {
    for (kind, rules) in [("ClusterRole", rbac::CLUSTER_RULES), ("Role", rbac::LEASE_RULES)] {
        let granted = chart(kind);
        assert!(!granted.is_empty(), "no {kind} in the chart");
        let used = table(rules);
        let missing: Vec<_> = used.difference(&granted).collect();
        assert!(missing.is_empty(), "the chart's {kind} lacks {missing:?}");
        let unused: Vec<_> = granted.difference(&used).collect();
        assert!(unused.is_empty(), "the chart's {kind} grants what is never used: {unused:?}");
    }
}
