//! Checks that `docs/contracts.md` contains every header and every variable.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::Path;

use slipway_contracts::metric_names::{self, family_name};
use slipway_contracts::{environment, headers, state};

/// Words in backquotes; `A_{B,C}` counts as `A_B` and `A_C`.
fn quoted_words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for word in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
        match word.split_once('{').and_then(|(start, rest)| Some((start, rest.split_once('}')?))) {
            Some((start, (middle, end))) => {
                words.extend(middle.split(',').map(|part| format!("{start}{part}{end}")));
            }
            None => {
                words.insert(word.to_owned());
            }
        }
    }
    words
}

fn variables() -> impl Iterator<Item = &'static str> {
    let servers = environment::MODEL_SERVER.into_iter().chain(environment::WORKER);
    servers.chain(environment::GATEWAY)
}

#[test]
fn headers_and_variables_are_documented() {
    let text = repository_file("docs/contracts.md");
    let words = quoted_words(&text);
    // A header may be followed by its value: `x-slipway-shielded: <revision>`.
    let is_named = |name: &str| {
        words.iter().any(|word| {
            word == name || word.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
        })
    };
    let all = headers::ALL.into_iter().chain([headers::REQUEST_TIMEOUT_MS]).chain(variables());
    let missing: Vec<_> = all.filter(|name| !is_named(name)).collect();
    assert!(missing.is_empty(), "docs/contracts.md does not name {missing:?}");
    assert!(text.contains(state::PATH));
}

#[test]
fn names_are_unique_and_have_their_prefix() {
    let headers: BTreeSet<_> = headers::ALL.into_iter().collect();
    assert_eq!(headers.len(), headers::ALL.len());
    assert!(headers.iter().all(|name| name.starts_with(headers::PREFIX)));
    for list in
        [&environment::GATEWAY[..], &environment::MODEL_SERVER[..], &environment::WORKER[..]]
    {
        assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
    }
    let downward = [environment::POD_NAME, environment::POD_NAMESPACE];
    let own = |name: &str| name.starts_with(environment::PREFIX) || downward.contains(&name);
    assert!(variables().all(own));
}

fn repository_file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("slipway_"));
    words.map(family_name).collect()
}

#[test]
fn alerts_and_dashboard_name_the_metrics_of_the_list() {
    let text = ["alerts.yaml", "rollout.json"]
        .map(|file| repository_file(&format!("charts/slipway/files/{file}")))
        .concat();
    let listed: BTreeSet<_> = metric_names::ALL.into_iter().map(family_name).collect();
    assert_eq!(metrics_in(&text), listed);
    let adapter = repository_file("examples/prometheus-adapter.yaml");
    let scaling = [metric_names::RUNTIME_QUEUE_JOBS, metric_names::QUEUE_JOBS];
    assert_eq!(metrics_in(&adapter), BTreeSet::from(scaling));
}
