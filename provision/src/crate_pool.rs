//! Shares compiled crates of the registry between all checkouts of a user: a second checkout
//! compiles only the workspace's crates.
//!
//! Cargo's `build.build-dir` would share everything in one folder, including the workspace's
//! crates: their hashes do not depend on the path of a checkout, so one would run what the other
//! compiled (docs/adr/0006-crate-pool.md has the experiment). This module shares only crates of the
//! registry: after a build, [`CratePool::save`] copies them into the cache; before one,
//! [`CratePool::restore`] copies those that a checkout lacks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::cache::{self, BuildCache};
use crate::error::{ProvisionError, Result};
use crate::{command, registry_unit};

/// Name of the lock and of the entry in the cache.
const NAME: &str = "crates";
/// How many lists of units are kept, one for each `Cargo.lock`.
const MAX_LISTS: usize = 6;

/// The pool of one compiler, as used by one checkout.
#[derive(Debug)]
pub struct CratePool {
    cache: BuildCache,
    /// The cache's entry of this compiler.
    dir: PathBuf,
    /// Name of the list of the units that this checkout needs.
    key: String,
    /// Content of `Cargo.lock`.
    lock: String,
    /// The modification time of all files in the pool.
    time: SystemTime,
}

/// The result of a save or a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedUnits {
    /// Units that were copied or linked.
    pub units: usize,
    /// Units that existed already.
    pub present: usize,
}

impl CratePool {
    /// Opens the pool of the checkout's compiler; creates an empty one if there is none.
    pub fn open(cache: &BuildCache, root: &Path) -> Result<Self> {
        let version = command::run_command(Command::new("rustc").current_dir(root).arg("-vV"))?;
        let release =
            version.lines().find_map(|line| line.strip_prefix("release: ")).unwrap_or("0");
        let dir = cache.get_or_make(
            NAME,
            &format!("{release}-{}", cache::content_key(&[version.as_bytes()])),
            |dir| {
                let time = SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs();
                fs::write(dir.join("time"), time.to_string())
                    .map_err(ProvisionError::io("write", dir))
            },
        )?;
        let read =
            |path: PathBuf| fs::read_to_string(&path).map_err(ProvisionError::io("read", path));
        let lock = read(root.join("Cargo.lock"))?;
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        let key = cache::content_key(&[
            lock.as_bytes(),
            read(root.join("Cargo.toml"))?.as_bytes(),
            flags.as_bytes(),
        ]);
        let seconds = read(dir.join("time"))?.trim().parse().unwrap_or_default();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(Self { cache: cache.clone(), dir, key, lock, time })
    }

    /// Whether a build was saved, of this `Cargo.lock` or of another one, which is probably
    /// similar.
    pub fn is_present(&self) -> bool {
        self.best_list().is_some()
    }

    /// Adds missing units to a build directory (`target/debug`), by the list of this `Cargo.lock`,
    /// else by the newest.
    pub fn restore(&self, build_dir: &Path) -> Result<MovedUnits> {
        let _lock = self.cache.lock_shared(NAME)?;
        let mut moved = MovedUnits { units: 0, present: 0 };
        let Some(list) = self.best_list() else { return Ok(moved) };
        for unit in read_units(&list)? {
            if registry_unit::is_complete(&build_dir.join(".fingerprint").join(&unit)) {
                moved.present += 1;
            } else if self.units_dir().join(&unit).is_dir() {
                registry_unit::restore_unit(&self.units_dir(), &unit, build_dir, self.time)?;
                moved.units += 1;
            }
        }
        Ok(moved)
    }

    /// Copies units of the registry that the pool lacks from a build directory into the pool.
    pub fn save(&self, build_dir: &Path) -> Result<MovedUnits> {
        let _lock = self.cache.lock(NAME)?;
        let pool = self.units_dir();
        fs::create_dir_all(&pool).map_err(ProvisionError::io("create", &pool))?;
        let compiled =
            registry_unit::compiled_units(build_dir, &registry_unit::locked_versions(&self.lock));
        let files = registry_unit::files_by_hash(build_dir);
        let mut moved = MovedUnits { units: 0, present: 0 };
        for unit in &compiled {
            if pool.join(unit).is_dir() {
                moved.present += 1;
                continue;
            }
            let hash =
                registry_unit::split_unit_name(unit).map(|(_, hash)| hash).unwrap_or_default();
            let files = files.get(hash).map(Vec::as_slice).unwrap_or_default();
            registry_unit::save_unit(build_dir, unit, files, &pool, self.time)?;
            moved.units += 1;
        }
        self.write_list(compiled)?;
        self.prune()?;
        Ok(moved)
    }

    fn units_dir(&self) -> PathBuf {
        self.dir.join("units")
    }

    fn lists_dir(&self) -> PathBuf {
        self.dir.join("lists")
    }

    fn best_list(&self) -> Option<PathBuf> {
        let own = self.lists_dir().join(&self.key);
        if own.is_file() { Some(own) } else { self.lists_by_age().into_iter().next() }
    }

    /// Newest first.
    fn lists_by_age(&self) -> Vec<PathBuf> {
        let modified = |path: &PathBuf| {
            fs::metadata(path).and_then(|it| it.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let names = registry_unit::file_names(&self.lists_dir());
        let mut lists: Vec<PathBuf> =
            names.iter().map(|name| self.lists_dir().join(name)).collect();
        lists.sort_by_key(|path| std::cmp::Reverse(modified(path)));
        lists
    }

    /// Adds units to the list, which grows with every kind of build (programs, tests, lints) of the
    /// same `Cargo.lock`.
    fn write_list(&self, compiled: Vec<String>) -> Result<()> {
        let (dir, path) = (self.lists_dir(), self.lists_dir().join(&self.key));
        fs::create_dir_all(&dir).map_err(ProvisionError::io("create", &dir))?;
        let mut all: BTreeSet<String> = compiled.into_iter().collect();
        if path.is_file() {
            all.extend(read_units(&path)?);
        }
        let text = all.into_iter().fold(String::new(), |text, unit| text + &unit + "\n");
        let partial = self.dir.join(format!("{}.partial", self.key));
        fs::write(&partial, text).map_err(ProvisionError::io("write", &partial))?;
        fs::rename(&partial, &path).map_err(ProvisionError::io("rename", &partial))
    }

    /// Removes units that no list names, and the oldest lists.
    fn prune(&self) -> Result<()> {
        let lists = self.lists_by_age();
        let (kept, former) = lists.split_at(lists.len().min(MAX_LISTS));
        former.iter().try_for_each(|path| cache::remove_path(path))?;
        let mut named = BTreeSet::new();
        for list in kept {
            named.extend(read_units(list)?);
        }
        let all = registry_unit::file_names(&self.units_dir());
        all.iter()
            .filter(|unit| !named.contains(*unit))
            .try_for_each(|unit| cache::remove_path(&self.units_dir().join(unit)))
    }
}

fn read_units(list: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(list).map_err(ProvisionError::io("read", list))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"serde\"\nversion = \"1.0.2\"\nsource = \"registry+x\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
    const SERDE: &str = "serde-00369d3c91bf8fcf";
    const OWN: &str = "own-10369d3c91bf8fcf";

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let root =
                std::env::temp_dir().join(format!("slipway-pool-{}-{name}", std::process::id()));
            cache::remove_path(&root).unwrap();
            for clone in ["a", "b"] {
                fs::create_dir_all(root.join(clone)).unwrap();
                fs::write(root.join(clone).join("Cargo.lock"), LOCK).unwrap();
                fs::write(root.join(clone).join("Cargo.toml"), "").unwrap();
            }
            Self(root)
        }

        fn pool(&self, clone: &str) -> CratePool {
            CratePool::open(&BuildCache::with_root(self.0.join("cache")), &self.0.join(clone))
                .unwrap()
        }

        fn target(&self, clone: &str) -> PathBuf {
            self.0.join(clone).join("target")
        }

        /// Creates the files that cargo writes for a unit.
        fn compile(&self, clone: &str, unit: &str, version: &str) {
            let target = self.target(clone);
            let (name, hash) = registry_unit::split_unit_name(unit).unwrap();
            let write = |path: String, text: &str| {
                let path = target.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            write(format!("deps/lib{name}-{hash}.rlib"), clone);
            write(
                format!("deps/{name}-{hash}.d"),
                &format!("x: /h/registry/src/index-1/{name}-{version}/src/lib.rs\n"),
            );
            write(format!("build/{unit}/out/made"), clone);
            write(format!(".fingerprint/{unit}/lib-{name}.json"), "{}");
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn another_checkout_gets_the_registry_and_nothing_of_ours() {
        let scratch = Scratch::new("shared");
        scratch.compile("a", SERDE, "1.0.2");
        scratch.compile("a", OWN, "0.1.0");
        assert_eq!(
            scratch.pool("a").save(&scratch.target("a")).unwrap(),
            MovedUnits { units: 1, present: 0 }
        );
        let target = scratch.target("b");
        assert_eq!(
            scratch.pool("b").restore(&target).unwrap(),
            MovedUnits { units: 1, present: 0 }
        );
        assert_eq!(
            fs::read_to_string(target.join("deps/libserde-00369d3c91bf8fcf.rlib")).unwrap(),
            "a"
        );
        assert!(target.join("build").join(SERDE).join("out/made").is_file());
        assert!(registry_unit::is_complete(&target.join(".fingerprint").join(SERDE)));
        assert!(
            !target.join(".fingerprint").join(OWN).exists()
                && !target.join("build").join(OWN).exists()
        );
        assert_eq!(
            scratch.pool("b").restore(&target).unwrap(),
            MovedUnits { units: 0, present: 1 }
        );
    }

    #[test]
    fn all_files_have_one_time() {
        let scratch = Scratch::new("time");
        scratch.compile("a", SERDE, "1.0.2");
        let pool = scratch.pool("a");
        pool.save(&scratch.target("a")).unwrap();
        pool.restore(&scratch.target("b")).unwrap();
        let time =
            |path: &str| fs::metadata(scratch.target("b").join(path)).unwrap().modified().unwrap();
        let note = format!(".fingerprint/{SERDE}/lib-serde.json");
        assert_eq!(time("deps/libserde-00369d3c91bf8fcf.rlib"), time(&note));
    }

    #[test]
    fn versions_that_the_lock_does_not_name_are_left_out() {
        let scratch = Scratch::new("version");
        scratch.compile("a", SERDE, "1.0.1");
        assert_eq!(scratch.pool("a").save(&scratch.target("a")).unwrap().units, 0);
    }

    #[test]
    fn a_unit_that_was_cut_off_is_left_out_and_a_half_restored_one_is_mended() {
        let scratch = Scratch::new("half");
        scratch.compile("a", SERDE, "1.0.2");
        let note = scratch.target("a").join(".fingerprint").join(SERDE).join("lib-serde.json");
        fs::remove_file(&note).unwrap();
        let pool = scratch.pool("a");
        assert_eq!(pool.save(&scratch.target("a")).unwrap().units, 0);
        fs::write(&note, "{}").unwrap();
        pool.save(&scratch.target("a")).unwrap();
        // Interrupted before the fingerprint.
        fs::create_dir_all(scratch.target("b").join(".fingerprint").join(SERDE)).unwrap();
        assert_eq!(pool.restore(&scratch.target("b")).unwrap().units, 1);
    }

    #[test]
    fn what_no_list_names_is_removed() {
        let scratch = Scratch::new("prune");
        scratch.compile("a", SERDE, "1.0.2");
        let pool = scratch.pool("a");
        pool.save(&scratch.target("a")).unwrap();
        fs::remove_file(pool.lists_dir().join(&pool.key)).unwrap();
        cache::remove_path(&scratch.target("a")).unwrap();
        pool.save(&scratch.target("a")).unwrap();
        assert!(registry_unit::file_names(&pool.units_dir()).is_empty());
    }
}
