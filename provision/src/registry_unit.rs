//! The files that cargo compiles for a crate of the registry: one unit is a folder of fingerprints,
//! the files in `deps` with its hash, and optionally the output of its build script. Names contain
//! a hash of compiler, version, features and profile, so the same name in another checkout is the
//! same unit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::cache;
use crate::error::{ProvisionError, Result};

/// Parts of a unit: the folder in cargo's build directory, and the folder in the pool. Fingerprints
/// come last, because a unit with them counts as compiled.
const PARTS: [(&str, &str); 2] = [("build", "build"), (".fingerprint", "fingerprint")];

/// Versions of the registry's crates by name, from a `Cargo.lock`.
pub fn locked_versions(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let value = package
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'));
            value.unwrap_or_default().to_owned()
        };
        if field("source").starts_with("registry+") {
            all.entry(field("name")).or_default().insert(field("version"));
        }
    }
    all
}

/// Name of the crate and hash of a unit, from the name of its folder.
pub fn split_unit_name(unit: &str) -> Option<(&str, &str)> {
    let (name, hash) = unit.rsplit_once('-')?;
    (hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some((name, hash))
}

/// The units of crates of the registry that are completely compiled in a build directory
/// (`target/debug`).
pub fn compiled_units(
    build_dir: &Path,
    locked: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let files = files_by_hash(build_dir);
    let none = vec![];
    let wanted = |unit: &String| {
        let Some((name, hash)) = split_unit_name(unit) else { return false };
        let Some(versions) = locked.get(name) else { return false };
        let files = files.get(hash).unwrap_or(&none);
        is_complete(&build_dir.join(".fingerprint").join(unit))
            && crate_version(name, files).is_none_or(|version| versions.contains(&version))
    };
    file_names(&build_dir.join(".fingerprint")).into_iter().filter(wanted).collect()
}

/// Whether cargo has recorded that a unit is compiled: it creates the folder at the beginning, and
/// writes the record at the end.
pub fn is_complete(fingerprint: &Path) -> bool {
    file_names(fingerprint).iter().any(|file| file.ends_with(".json"))
}

/// The files in `deps`, by the hash in their names.
pub fn files_by_hash(build_dir: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut all: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let deps = build_dir.join("deps");
    for file in file_names(&deps) {
        let stem = file.split('.').next().unwrap_or_default();
        if let Some((_, hash)) = split_unit_name(stem) {
            all.entry(hash.to_owned()).or_default().push(deps.join(&file));
        }
    }
    all
}

/// The version of a crate, from the path of its sources; `None` for the run of a build script,
/// which reads none.
fn crate_version(name: &str, files: &[PathBuf]) -> Option<String> {
    let notes = files.iter().find(|file| file.extension().is_some_and(|it| it == "d"))?;
    let text = fs::read_to_string(notes).ok()?;
    let folder = format!("/{name}-");
    let mut found = text.split_whitespace().filter_map(|path| {
        let rest = path.split_once("/registry/src/")?.1;
        let rest = &rest[rest.find('/')?..];
        Some(rest.strip_prefix(&folder)?.split('/').next()?.to_owned())
    });
    found.next()
}

/// Copies a unit into the pool. All files get the same time: cargo treats a file as stale when it
/// is older than its inputs.
pub fn save_unit(
    build_dir: &Path,
    unit: &str,
    files: &[PathBuf],
    pool: &Path,
    time: SystemTime,
) -> Result<()> {
    let partial = pool.join(format!("{unit}.partial"));
    cache::remove_path(&partial)?;
    let deps = partial.join("deps");
    fs::create_dir_all(&deps).map_err(ProvisionError::io("create", &deps))?;
    for file in files {
        copy_file(file, &deps.join(file.file_name().unwrap_or_default()), time)?;
    }
    for (from, to) in PARTS {
        let from = build_dir.join(from).join(unit);
        if from.is_dir() {
            copy_folder(&from, &partial.join(to), time)?;
        }
    }
    fs::rename(&partial, pool.join(unit)).map_err(ProvisionError::io("rename", &partial))
}

/// Restores a unit from the pool to a build directory. Libraries are linked, because cargo and the
/// compiler only ever replace them; all other files are copied.
pub fn restore_unit(pool: &Path, unit: &str, build_dir: &Path, time: SystemTime) -> Result<()> {
    let from = pool.join(unit);
    let deps = build_dir.join("deps");
    fs::create_dir_all(&deps).map_err(ProvisionError::io("create", &deps))?;
    for file in file_names(&from.join("deps")) {
        let (from, to) = (from.join("deps").join(&file), deps.join(&file));
        cache::remove_path(&to)?;
        let library = [".rlib", ".rmeta", ".so"].iter().any(|end| file.ends_with(end));
        if !library || fs::hard_link(&from, &to).is_err() {
            copy_file(&from, &to, time)?;
        }
    }
    for (to, part) in PARTS {
        let part = from.join(part);
        if part.is_dir() {
            let to = build_dir.join(to).join(unit);
            cache::remove_path(&to)?;
            copy_folder(&part, &to, time)?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path, time: SystemTime) -> Result<()> {
    fs::create_dir_all(to).map_err(ProvisionError::io("create", to))?;
    for name in file_names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { copy_folder(&from, &to, time)? } else { copy_file(&from, &to, time)? }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, time: SystemTime) -> Result<()> {
    fs::copy(from, to).map_err(ProvisionError::io("copy", from))?;
    let file = File::options().write(true).open(to).map_err(ProvisionError::io("open", to))?;
    file.set_modified(time).map_err(ProvisionError::io("set the time of", to))
}

/// Names in a folder, sorted; empty if it does not exist.
pub fn file_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_the_registry_are_read_from_the_lock() {
        let lock = "version = 4\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.2\"\nsource = \"registry+x\"\n\n[[package]]\nname = \"serde\"\nversion = \"0.9.1\"\nsource = \"registry+x\"\n";
        let locked = locked_versions(lock);
        assert_eq!(locked.keys().collect::<Vec<_>>(), ["serde"]);
        assert_eq!(locked["serde"].len(), 2);
    }

    #[test]
    fn names_of_units_end_in_a_hash() {
        assert_eq!(
            split_unit_name("serde_json-00369d3c91bf8fcf"),
            Some(("serde_json", "00369d3c91bf8fcf"))
        );
        assert_eq!(
            split_unit_name("async-trait-00369d3c91bf8fcf"),
            Some(("async-trait", "00369d3c91bf8fcf"))
        );
        assert_eq!(split_unit_name("README"), None);
        assert_eq!(split_unit_name("a-b"), None);
    }
}
