//! Checks that the tests and files that documents name exist.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Names of all functions and Rust files below a folder: a promise may be a file with several
/// tests.
fn functions(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            functions(&path, all);
        } else if name.ends_with(".rs") {
            all.insert(name.trim_end_matches(".rs").to_owned());
            let text = fs::read_to_string(&path).unwrap();
            let found = text
                .lines()
                .filter_map(|line| line.trim_start().split_once("fn "))
                .map(|(_, rest)| rest);
            all.extend(
                found.map(|rest| rest.split(['(', '<']).next().unwrap_or_default().to_owned()),
            );
        }
    }
}

/// The texts in back quotes in the last column of a document's tables.
fn named(document: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    let last = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
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

/// All files below a folder, by their paths from it and from each folder in between.
fn path_ends(folder: &Path, below: &str, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let relative = format!("{below}{name}");
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            path_ends(&path, &format!("{relative}/"), all);
        } else if path.is_file() {
            let starts = relative.match_indices('/').map(|(at, _)| at + 1);
            all.extend(std::iter::once(0).chain(starts).map(|at| relative[at..].to_owned()));
        }
    }
}

/// Paths of Rust files in back quotes, without leading `../`; `a/{b,c}.rs` gives two.
fn source_files(text: &str) -> Vec<String> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let plain = |word: &&str| word.chars().all(|c| c.is_alphanumeric() || "_-./{,}".contains(c));
    quoted.filter(plain).flat_map(expand_braces).filter(|word| is_source_file(word)).collect()
}

fn is_source_file(word: &str) -> bool {
    Path::new(word).extension().is_some_and(|end| end == "rs")
}

/// Expands `{a,b}` in a word to two words; the file extension may be inside or after the braces.
fn expand_braces(word: &str) -> Vec<String> {
    let word = word.trim_start_matches("../");
    match word.split_once('{').and_then(|(start, rest)| Some((start, rest.split_once('}')?))) {
        Some((start, (parts, end))) => {
            parts.split(',').map(|part| format!("{start}{part}{end}")).collect()
        }
        None => vec![word.to_owned()],
    }
}

#[test]
fn source_files_that_documents_name_exist() {
    let (mut all, mut missing, mut found) = (BTreeSet::new(), Vec::new(), 0);
    path_ends(root(), "", &mut all);
    for document in
        all.iter().filter(|name| name.ends_with(".md") && !name.ends_with("CHANGELOG.md"))
    {
        let Ok(text) = fs::read_to_string(root().join(document)) else { continue };
        let files = source_files(&text);
        found += files.len();
        let lost = files.iter().filter(|file| !all.contains(*file));
        missing.extend(lost.map(|file| format!("{document}: {file}")));
    }
    assert!(found >= 100, "only {found} files are named: are the documents read?");
    assert!(missing.is_empty(), "documents name files that are not there: {missing:#?}");
}
