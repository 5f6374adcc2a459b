//! Checks that there are no circles among the modules of a crate, so that it can be read and tested
//! from its lowest module up.
//!
//! A module is a direct child of `src` with everything inside it. Tests do not count.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, UseTree};

type Graph = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Folders of the crates of the workspace.
fn crates(folder: &Path, all: &mut Vec<PathBuf>) {
    if folder.join("Cargo.toml").exists() && folder.join("src").exists() {
        all.push(folder.to_owned());
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir()
            && !["target", "src", "tests"].contains(&name.as_str())
            && !name.starts_with('.')
        {
            crates(&path, all);
        }
    }
}

/// Source files without those of tests, each with the path of its module.
fn sources(folder: &Path, module: &[String], all: &mut Vec<(Vec<String>, PathBuf)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name == "tests" || name == "bin" || name.ends_with("_tests") {
            continue;
        }
        let inside = || [module, std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            sources(&path, &inside(), all);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let own = ["lib", "main", "mod"].contains(&name.as_str());
            all.push((if own { module.to_vec() } else { inside() }, path));
        }
    }
}

/// Collects the modules of its crate that a file names.
struct Names {
    module: Vec<String>,
    found: BTreeSet<String>,
}

impl Names {
    /// Records a path as it is written, and its first module if it is in this crate.
    fn take(&mut self, path: &[String]) {
        let mut at = self.module.clone();
        let mut rest = path.iter();
        match rest.next().map(String::as_str) {
            Some("crate") => at.clear(),
            Some("self") => {}
            Some("super") => drop(at.pop()),
            _ => return,
        }
        for segment in rest {
            match segment.as_str() {
                "super" => drop(at.pop()),
                other => at.push(other.to_owned()),
            }
        }
        self.found.extend(at.into_iter().next());
    }

    fn take_tree(&mut self, tree: &UseTree, before: &[String]) {
        match tree {
            UseTree::Path(path) => {
                self.take_tree(&path.tree, &[before, &[path.ident.to_string()]].concat())
            }
            UseTree::Name(name) => self.take(&[before, &[name.ident.to_string()]].concat()),
            UseTree::Rename(name) => self.take(&[before, &[name.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.take(before),
            UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.take_tree(item, before))
            }
        }
    }
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    let test = |attribute: &Attribute| {
        attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    };
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && test(attribute))
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if is_of_tests(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_use_tree(&mut self, tree: &'ast UseTree) {
        self.take_tree(tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.take(
            &path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>(),
        );
        visit::visit_path(self, path);
    }
}

/// The graph of the modules of a crate that name each other.
fn graph(folder: &Path) -> Graph {
    let mut files = Vec::new();
    sources(&folder.join("src"), &[], &mut files);
    let modules: BTreeSet<String> =
        files.iter().filter_map(|(module, _)| module.first().cloned()).collect();
    let mut graph = Graph::new();
    for (module, path) in files {
        // The root of a crate names its modules, and no module names the root.
        let Some(own) = module.first().cloned() else { continue };
        let mut names = Names { module, found: BTreeSet::new() };
        names.visit_file(&syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap());
        let others = names.found.into_iter().filter(|name| *name != own && modules.contains(name));
        graph.entry(own.clone()).or_default().extend(others);
    }
    graph
}

/// All modules that can be reached from a module.
fn reached(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut all, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(module) = open.pop() {
        for next in graph.get(&module).into_iter().flatten() {
            if all.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    all
}

/// The largest set of modules that can all reach each other.
fn largest_circle(graph: &Graph) -> Vec<String> {
    let reached: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|it| (it, reached(graph, it))).collect();
    let circle = |module: &String| -> Vec<String> {
        let back = |other: &&String| reached.get(*other).is_some_and(|all| all.contains(module));
        reached[module].iter().filter(back).cloned().collect()
    };
    graph.keys().map(circle).max_by_key(Vec::len).unwrap_or_default()
}

#[test]
fn modules_form_no_circles() {
    let mut folders = Vec::new();
    crates(&root(), &mut folders);
    assert!(folders.len() > 15, "{folders:?}");
    let mut wrong = Vec::new();
    for folder in folders {
        let name = folder.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let circle = largest_circle(&graph(&folder));
        if !circle.is_empty() {
            wrong.push(format!("{name}: {} modules in a circle: {circle:?}", circle.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn circles_are_found() {
    let of = |pairs: &[(&str, &[&str])]| -> Graph {
        pairs
            .iter()
            .map(|(from, to)| ((*from).to_owned(), to.iter().map(|it| (*it).to_owned()).collect()))
            .collect()
    };
    assert!(largest_circle(&of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    assert_eq!(largest_circle(&of(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])), ["b", "c"]);
    let mut names = Names { module: vec!["a".to_owned(), "b".to_owned()], found: BTreeSet::new() };
    let text = "use crate::{c::X, d}; use super::super::e::Y; use super::f; fn g() { crate::h::i(); } #[cfg(test)] mod tests { use crate::z; }";
    names.visit_file(&syn::parse_file(text).unwrap());
    assert_eq!(names.found.into_iter().collect::<Vec<_>>(), ["a", "c", "d", "e", "h"]);
}
