//! The cache: a folder that outlives checkouts. Entries are named by their kind and a key over all
//! their inputs. They are built in another folder and renamed, and are locked meanwhile, so that
//! two checkouts can use the cache at once.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{ProvisionError, Result};

/// Environment variable that moves the cache.
pub const VARIABLE: &str = "SLIPWAY_CACHE";
/// An entry of an old version is removed after it was not used for this long: a checkout of an
/// older commit may still need it.
const MAX_UNUSED_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// The file in an entry whose modification time is the time of the last use.
const LAST_USED_FILE: &str = ".used";
/// Marks a folder as a cache of Slipway, so that `clean` cannot remove a home directory.
const MARK: &str = ".slipway-cache";
/// The required beginning of `CACHEDIR.TAG` (bford.info/cachedir), which makes backups skip the
/// folder.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# The cache of Slipway's build and tests. `make clean-cache` removes it.\n";

/// The cache of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildCache {
    root: PathBuf,
}

/// A lock on a part of the cache, held until it is dropped or the process ends.
#[derive(Debug)]
#[must_use]
pub struct CacheLock(#[expect(dead_code, reason = "held for its lock, which ends with it")] File);

impl BuildCache {
    /// `SLIPWAY_CACHE`, else `slipway` in the user's cache directory (`XDG_CACHE_HOME`, else
    /// `~/.cache`).
    ///
    /// # Errors
    /// When the environment names no home, or a relative path: programs that run in other folders
    /// would use other caches.
    pub fn from_env() -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self::choose_root(
            variable(VARIABLE).as_deref(),
            variable("XDG_CACHE_HOME").as_deref(),
            variable("HOME").as_deref(),
        )
    }

    fn choose_root(
        given: Option<&OsStr>,
        cache_home: Option<&OsStr>,
        home: Option<&OsStr>,
    ) -> Result<Self> {
        let root = match (given, cache_home, home) {
            (Some(path), _, _) => PathBuf::from(path),
            // The XDG specification requires that relative paths are ignored.
            (None, Some(path), _) if Path::new(path).is_absolute() => {
                Path::new(path).join("slipway")
            }
            (None, _, Some(home)) => Path::new(home).join(".cache/slipway"),
            (None, _, None) => {
                return Err(ProvisionError::Other(format!(
                    "there is no HOME to keep a cache in: set {VARIABLE} to a folder"
                )));
            }
        };
        if !root.is_absolute() {
            return Err(ProvisionError::Other(format!(
                "{VARIABLE}={} is not an absolute path",
                root.display()
            )));
        }
        Ok(Self { root })
    }

    /// The cache in a folder.
    pub fn with_root(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Path of an entry or a folder of entries.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Creates the folder, and marks it as a cache.
    pub fn create(&self) -> Result<()> {
        let mark = self.path(MARK);
        if mark.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.root).map_err(ProvisionError::io("create", &self.root))?;
        fs::write(self.path("CACHEDIR.TAG"), CACHEDIR_TAG)
            .map_err(ProvisionError::io("write", self.path("CACHEDIR.TAG")))?;
        fs::write(&mark, "").map_err(ProvisionError::io("write", &mark))
    }

    /// Waits until no other process makes the part `name`, with a message if it has to wait.
    pub fn lock(&self, name: &str) -> Result<CacheLock> {
        let (file, path) = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!(
                    "waiting for another process that uses {name} of the cache {}",
                    self.root.display()
                );
                file.lock().map_err(ProvisionError::io("lock", &path))?;
            }
            Err(TryLockError::Error(source)) => {
                return Err(ProvisionError::Io { action: "lock", path, source });
            }
        }
        Ok(CacheLock(file))
    }

    /// Waits until no other process changes the part `name`; several processes may read it at once.
    pub fn lock_shared(&self, name: &str) -> Result<CacheLock> {
        let (file, path) = self.lock_file(name)?;
        file.lock_shared().map_err(ProvisionError::io("lock", path))?;
        Ok(CacheLock(file))
    }

    fn lock_file(&self, name: &str) -> Result<(File, PathBuf)> {
        self.create()?;
        let dir = self.path("locks");
        fs::create_dir_all(&dir).map_err(ProvisionError::io("create", &dir))?;
        let path = dir.join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(ProvisionError::io("open", &path))?;
        Ok((file, path))
    }

    /// The entry `<name>-<key>`; if it does not exist, `make` builds it in another folder.
    ///
    /// `name` and `key` contain no path separators; `make` receives the path of an empty folder and
    /// fills it.
    pub fn get_or_make(
        &self,
        name: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.entry_path(name, key);
        if self.use_entry(name, key).is_some() {
            return Ok(path);
        }
        let _lock = self.lock(name)?;
        // Another process may have made it while this one waited.
        if self.use_entry(name, key).is_some() {
            return Ok(path);
        }
        let partial = self.root.join(format!("{name}-{key}.partial"));
        remove_path(&partial)?;
        fs::create_dir_all(&partial).map_err(ProvisionError::io("create", &partial))?;
        make(&partial)?;
        touch_file(&partial.join(LAST_USED_FILE))?;
        fs::rename(&partial, &path).map_err(ProvisionError::io("rename", &partial))?;
        self.prune(name, key)?;
        Ok(path)
    }

    /// Path of the entry `<name>-<key>`, whether it exists or not.
    pub fn entry_path(&self, name: &str, key: &str) -> PathBuf {
        self.root.join(format!("{name}-{key}"))
    }

    /// Path of the entry if it exists; the call counts as a use.
    pub fn use_entry(&self, name: &str, key: &str) -> Option<PathBuf> {
        let path = self.entry_path(name, key);
        // A read-only cache is still useful.
        path.is_dir().then(|| touch_file(&path.join(LAST_USED_FILE)).unwrap_or_default())?;
        Some(path)
    }

    /// Removes entries of `name` with another key that were not used recently.
    pub(crate) fn prune(&self, name: &str, key: &str) -> Result<()> {
        let current = format!("{name}-{key}");
        let entries = fs::read_dir(&self.root).map_err(ProvisionError::io("list", &self.root))?;
        for entry in entries.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let former =
                file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_key);
            if former
                && file != current
                && unused_for(&entry.path()).is_none_or(|age| age > MAX_UNUSED_AGE)
            {
                remove_path(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the whole cache, but no folder that is not a cache.
    pub fn clean(&self) -> Result<()> {
        if !self.root.exists() {
            return Ok(());
        }
        if !self.path(MARK).exists() {
            return Err(ProvisionError::Other(format!(
                "{} is no cache of ours ({MARK} is missing)",
                self.root.display()
            )));
        }
        remove_path(&self.root)
    }
}

/// A key over all inputs of an entry: 12 hexadecimal digits.
pub fn content_key(parts: &[&[u8]]) -> String {
    // SipHash with a fixed key. If another release of the standard library hashes differently,
    // entries are made once more.
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:012x}", hasher.finish() >> 16)
}

/// Whether a text is the part after the name of an entry: a key of [`content_key`], optionally
/// after a version.
fn is_key(text: &str) -> bool {
    let (version, key) = text.rsplit_once('-').unwrap_or(("0", text));
    let version = version.strip_prefix('v').unwrap_or(version);
    let versioned = version.starts_with(|c: char| c.is_ascii_digit());
    versioned && key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn unused_for(entry: &Path) -> Option<Duration> {
    let used = fs::metadata(entry.join(LAST_USED_FILE))
        .or_else(|_| fs::metadata(entry))
        .ok()?
        .modified()
        .ok()?;
    SystemTime::now().duration_since(used).ok()
}

fn touch_file(path: &Path) -> Result<()> {
    let mut file = File::create(path).map_err(ProvisionError::io("write", path))?;
    // Writing content changes the modification time even if the file was empty before.
    file.write_all(b"\n").map_err(ProvisionError::io("write", path))
}

/// Removes a file or a folder with its contents; succeeds if it does not exist.
pub fn remove_path(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(ProvisionError::io("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> BuildCache {
        let root =
            std::env::temp_dir().join(format!("slipway-cache-{}-{name}", std::process::id()));
        remove_path(&root).unwrap();
        BuildCache::with_root(root)
    }

    #[test]
    fn the_environment_chooses_the_folder() {
        let choose = |given: Option<&str>, xdg: Option<&str>, home: Option<&str>| {
            BuildCache::choose_root(
                given.map(OsStr::new),
                xdg.map(OsStr::new),
                home.map(OsStr::new),
            )
            .map(|cache| cache.root)
        };
        assert_eq!(choose(Some("/x"), Some("/y"), Some("/h")).unwrap(), Path::new("/x"));
        assert_eq!(choose(None, Some("/y"), Some("/h")).unwrap(), Path::new("/y/slipway"));
        assert_eq!(choose(None, Some("y"), Some("/h")).unwrap(), Path::new("/h/.cache/slipway"));
        assert_eq!(choose(None, None, Some("/h")).unwrap(), Path::new("/h/.cache/slipway"));
        assert!(choose(Some("x"), None, Some("/h")).is_err());
        assert!(choose(None, None, None).is_err());
    }

    #[test]
    fn an_entry_is_made_once_and_never_taken_half() {
        let cache = temporary("once");
        let failed = cache.get_or_make("tool", "0123456789ab", |dir| {
            fs::write(dir.join("half"), "").unwrap();
            Err(ProvisionError::Other("cut off".into()))
        });
        assert!(failed.is_err() && cache.use_entry("tool", "0123456789ab").is_none());
        let made = cache.get_or_make("tool", "0123456789ab", |dir| {
            assert!(!dir.join("half").exists());
            fs::write(dir.join("whole"), "").map_err(ProvisionError::io("write", dir))
        });
        assert!(made.unwrap().join("whole").exists());
        cache.get_or_make("tool", "0123456789ab", |_| panic!("it is there")).unwrap();
        cache.clean().unwrap();
    }

    #[test]
    fn two_processes_make_an_entry_once() {
        let cache = temporary("twice");
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cache.get_or_make("tool", "0123456789ab", |_| {
                        made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    })
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        cache.clean().unwrap();
    }

    #[test]
    fn former_versions_go_when_nobody_uses_them() {
        let cache = temporary("prune");
        let nothing = |_: &Path| Ok(());
        let names = [
            ("tool", "v1.0-aaaaaaaaaaaa"),
            ("tool", "v1.1-bbbbbbbbbbbb"),
            ("tool-other", "v1-cccccccccccc"),
        ];
        for (name, key) in names {
            cache.get_or_make(name, key, nothing).unwrap();
        }
        let age = |name: &str, key: &str| {
            let path = cache.entry_path(name, key).join(LAST_USED_FILE);
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(SystemTime::now() - MAX_UNUSED_AGE * 2)
                .unwrap();
        };
        age("tool", "v1.0-aaaaaaaaaaaa");
        age("tool-other", "v1-cccccccccccc");
        cache.get_or_make("tool", "v1.2-dddddddddddd", nothing).unwrap();
        let here = |name: &str, key: &str| cache.entry_path(name, key).exists();
        assert!(!here("tool", "v1.0-aaaaaaaaaaaa") && here("tool", "v1.1-bbbbbbbbbbbb"));
        assert!(here("tool-other", "v1-cccccccccccc"));
        cache.clean().unwrap();
        assert!(!cache.root().exists());
    }

    #[test]
    fn only_a_cache_is_cleaned() {
        let cache = temporary("foreign");
        fs::create_dir_all(cache.root()).unwrap();
        assert!(cache.clean().is_err() && cache.root().exists());
        fs::remove_dir(cache.root()).unwrap();
        cache.clean().unwrap();
    }

    #[test]
    fn keys_tell_parts_apart() {
        assert_eq!(content_key(&[b"a", b"b"]).len(), 12);
        assert_ne!(content_key(&[b"a", b"b"]), content_key(&[b"ab"]));
        assert_ne!(content_key(&[b"a", b"b"]), content_key(&[b"b", b"a"]));
    }
}
