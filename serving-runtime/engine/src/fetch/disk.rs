//! Files: hashing, and downloads that appear in the cache complete or not at all.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::files::GRAPH_FILE;
use crate::error::{LoadError, LoadErrorReason};

/// Prefix of the names of incomplete downloads.
const PARTIAL_PREFIX: &str = ".partial-";
/// Age at which an incomplete download is removed. No download takes this long; an older file was
/// left on a persistent volume by a pod that was killed.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Removes incomplete downloads that were left behind.
fn remove_stale_downloads(cache_dir: &Path) {
    let entries = std::fs::read_dir(cache_dir).into_iter().flatten().flatten();
    for entry in
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PARTIAL_PREFIX))
    {
        let age =
            entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > STALE_AFTER) {
            // Another pod may have removed it first.
            let _ = std::fs::remove_file(entry.path())
                .or_else(|_| std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// The path in the cache of the model with this digest.
pub(super) fn model_path(cache_dir: &Path, hex: &str) -> PathBuf {
    cache_dir.join(hex).join(GRAPH_FILE)
}

/// The error for a missing file.
pub(super) fn not_found(path: &Path) -> LoadError {
    LoadError::permanent(
        LoadErrorReason::ModelNotFound,
        format!("there is no file {}", path.display()),
    )
}

/// The error for a model larger than the limit.
pub(super) fn too_large(max_bytes: u64) -> LoadError {
    LoadError::permanent(
        LoadErrorReason::InvalidModel,
        format!("the model is larger than {max_bytes} bytes (--max-model-bytes)"),
    )
}

fn disk_error(doing: &str, path: &Path, e: &std::io::Error) -> LoadError {
    LoadError::transient(LoadErrorReason::LoadFailed, format!("{doing} {}: {e}", path.display()))
}

/// The hex digits of a file's SHA-256, and its size in bytes.
pub(super) fn hash_file(path: &Path, max_bytes: u64) -> Result<(String, u64), LoadError> {
    let mut file = File::open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => not_found(path),
        _ => disk_error("cannot open", path, &e),
    })?;
    let meta = file.metadata().map_err(|e| disk_error("cannot read", path, &e))?;
    if !meta.is_file() {
        return Err(LoadError::permanent(
            LoadErrorReason::InvalidModel,
            format!("{} is not a file", path.display()),
        ));
    }
    if meta.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer).map_err(|e| disk_error("cannot read", path, &e))? {
            0 => return Ok((hex::encode(hasher.finalize()), bytes)),
            n => {
                bytes += n as u64;
                hasher.update(&buffer[..n]);
            }
        }
    }
}

/// Writes a download to disk.
pub(super) struct DownloadWriter {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    remaining_bytes: u64,
    max_bytes: u64,
    persisted: bool,
}

/// A complete download that is not yet at its final path.
pub(super) struct CompletedDownload {
    writer: DownloadWriter,
    hex: String,
}

impl DownloadWriter {
    /// Creates the file next to its final path, so that it can be renamed there.
    pub(super) fn create(cache_dir: &Path, max_bytes: u64) -> Result<Self, LoadError> {
        std::fs::create_dir_all(cache_dir)
            .map_err(|e| disk_error("cannot create", cache_dir, &e))?;
        remove_stale_downloads(cache_dir);
        let path = cache_dir.join(format!("{PARTIAL_PREFIX}{:016x}", rand::random::<u64>()));
        let file = File::create_new(&path).map_err(|e| disk_error("cannot create", &path, &e))?;
        Ok(Self {
            file,
            path,
            hasher: Sha256::new(),
            remaining_bytes: max_bytes,
            max_bytes,
            persisted: false,
        })
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        self.remaining_bytes = self
            .remaining_bytes
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| too_large(self.max_bytes))?;
        self.hasher.update(piece);
        self.file.write_all(piece).map_err(|e| disk_error("cannot write", &self.path, &e))
    }

    /// Ends the download after its last piece.
    pub(super) fn finish(mut self) -> Result<CompletedDownload, LoadError> {
        self.file.sync_all().map_err(|e| disk_error("cannot write", &self.path, &e))?;
        let hex = hex::encode(std::mem::take(&mut self.hasher).finalize());
        Ok(CompletedDownload { writer: self, hex })
    }
}

impl CompletedDownload {
    pub(super) fn hex(&self) -> &str {
        &self.hex
    }

    pub(super) fn bytes(&self) -> u64 {
        self.writer.max_bytes - self.writer.remaining_bytes
    }

    /// The temporary path.
    pub(super) fn path(&self) -> &Path {
        &self.writer.path
    }

    fn move_to(mut self, path: &Path) -> Result<(), LoadError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| disk_error("cannot create", dir, &e))?;
        }
        std::fs::rename(&self.writer.path, path)
            .map_err(|e| disk_error("cannot move the download to", path, &e))?;
        self.writer.persisted = true;
        Ok(())
    }
}

/// Moves the files of the model with digest `hex` to their final paths, all of them or none, and
/// returns the path of the graph.
pub(super) fn install_model(
    mut parts: Vec<(String, CompletedDownload)>,
    hex: &str,
    cache_dir: &Path,
) -> Result<PathBuf, LoadError> {
    let path = model_path(cache_dir, hex);
    if parts.len() == 1
        && let Some((_, only)) = parts.pop()
    {
        only.move_to(&path)?;
        return Ok(path);
    }
    let draft =
        TempDirectory(cache_dir.join(format!("{PARTIAL_PREFIX}{:016x}", rand::random::<u64>())));
    for (name, part) in parts {
        part.move_to(&draft.0.join(name))?;
    }
    let dir = cache_dir.join(hex);
    // An existing directory was found damaged, or another pod installed the same bytes first. A
    // directory cannot be renamed onto one that has files, so the old one is moved away. Processes
    // that have its files open keep them.
    let aside =
        TempDirectory(cache_dir.join(format!("{PARTIAL_PREFIX}{:016x}", rand::random::<u64>())));
    let _ = std::fs::rename(&dir, &aside.0);
    std::fs::rename(&draft.0, &dir)
        .map_err(|e| disk_error("cannot move the download to", &dir, &e))?;
    Ok(path)
}

/// A directory that is removed on drop unless it was moved away before.
struct TempDirectory(PathBuf);

impl Drop for TempDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes a file that was not persisted: the cache is a small volume.
impl Drop for DownloadWriter {
    fn drop(&mut self) {
        if !self.persisted {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        let mut w = DownloadWriter::create(dir.path(), 5).unwrap();
        w.write(b"abc").unwrap();
        assert_eq!(w.write(b"def").map_err(|e| e.reason), Err(LoadErrorReason::InvalidModel));
        drop(w);
        assert_eq!(files(), 0);
        let mut w = DownloadWriter::create(dir.path(), 5).unwrap();
        w.write(b"abc").unwrap();
        let one = w.finish().unwrap();
        assert_eq!(one.bytes(), 3);
        let path = install_model(vec![(GRAPH_FILE.into(), one)], "aa", dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(files(), 1);
        // Several files, twice: the second set replaces the first.
        for content in [b"v1", b"v2"] {
            let part = |name: &str| {
                let mut w = DownloadWriter::create(dir.path(), 5).unwrap();
                w.write(content).unwrap();
                (name.to_owned(), w.finish().unwrap())
            };
            let path =
                install_model(vec![part(GRAPH_FILE), part("deep/weights")], "bb", dir.path())
                    .unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
            assert_eq!(std::fs::read(dir.path().join("bb/deep/weights")).unwrap(), content);
            assert_eq!(files(), 2);
        }
    }

    #[test]
    fn what_a_killed_pod_left_goes_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let leave = |name: &str, age: Duration| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        };
        leave(".partial-0", STALE_AFTER * 2);
        leave(".partial-1", STALE_AFTER / 2);
        leave("other", STALE_AFTER * 2);
        drop(DownloadWriter::create(dir.path(), 5).unwrap());
        let left = [".partial-0", ".partial-1", "other"].map(|name| dir.path().join(name).exists());
        assert_eq!(left, [false, true, true]);
    }
}
