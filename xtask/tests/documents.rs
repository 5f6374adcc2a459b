//! Tests that documents name are there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Names of all functions and files of Rust below a folder: a promise may be a file with several tests.
fn functions(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            functions(&path, all);
        } else if name.ends_with(".rs") {
            all.insert(name.trim_end_matches(".rs").to_owned());
            let text = fs::read_to_string(&path).unwrap();
            let found = text.lines().filter_map(|line| line.trim_start().split_once("fn ")).map(|(_, rest)| rest);
            all.extend(found.map(|rest| rest.split(['(', '<']).next().unwrap_or_default().to_owned()));
        }
    }
}

/// What stands in back quotes in the last column of a document's tables.
fn named(document: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    let last = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn tests_that_documents_name_exist() {
    let mut all = BTreeSet::new();
    functions(root(), &mut all);
    for document in ["README.md", "docs/security.md"] {
        let named = named(document);
        assert!(named.len() >= 10, "{document} names {named:?}");
        let missing: Vec<_> = named.iter().filter(|name| !all.contains(*name)).collect();
        assert!(missing.is_empty(), "{document} names tests that are not there: {missing:?}");
    }
}
