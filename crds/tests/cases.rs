//! Objects that must be accepted and objects that must be rejected: one file each below `cases/`. A
//! file in `reject/` begins with `# expect: <text that the response contains>`. The e2e tests apply
//! the same files to a real API server.

#![allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{
    documents, only_in_a_cluster, problems, problems_of_file, root, rules, schema, yaml_files,
};

/// The text that the response must contain, from the first line of a case.
fn expectation(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
    expected
        .unwrap_or_else(|| panic!("{}: the first line is not `# expect: `", file.display()))
        .to_owned()
}

#[test]
fn accepted() {
    let schema = schema();
    let files = yaml_files(&root().join("crds/tests/cases/accept"));
    for file in &files {
        for object in documents(file) {
            assert_eq!(problems(&schema, &object), Vec::<String>::new(), "{}", file.display());
        }
    }
    assert!(files.len() > 10);
}

#[test]
fn rejected_with_a_message_that_helps() {
    let schema = schema();
    let rules = rules(&schema);
    let unseen = |expected: &str| {
        rules
            .iter()
            .any(|(_, _, rule, message)| only_in_a_cluster(rule) && message.contains(expected))
    };
    for file in yaml_files(&root().join("crds/tests/cases/reject")) {
        let expected = expectation(&file);
        let found: Vec<String> = problems_of_file(&schema, &file);
        assert!(
            unseen(&expected) || found.iter().any(|problem| problem.contains(&expected)),
            "{}: {found:?}",
            file.display()
        );
    }
}

/// A rule without a case that breaks it might not work at all.
#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let schema = schema();
    let files = yaml_files(&root().join("crds/tests/cases/reject"));
    let found: BTreeSet<String> =
        files.iter().flat_map(|file| problems_of_file(&schema, file)).collect();
    let expected: Vec<String> = files.iter().map(|file| expectation(file)).collect();
    for (path, _, rule, message) in rules(&schema) {
        if only_in_a_cluster(&rule) {
            let named =
                expected.iter().any(|text| text.contains(": ") && message.starts_with(text));
            assert!(named, "no case for {path}: {rule}");
            continue;
        }
        assert!(
            found.iter().any(|problem| problem.contains(&message)),
            "no case for {path}: {rule}"
        );
    }
}

#[test]
fn every_message_names_its_field_first() {
    for (path, _, _, message) in rules(&schema()) {
        let named = message.starts_with("spec.") || message.starts_with("metadata.name: ");
        assert!(named && message.contains(": "), "{path}: {message}");
    }
}
