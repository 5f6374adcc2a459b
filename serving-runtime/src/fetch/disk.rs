//! Files: hashing, and downloads that appear whole or not at all.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::Fetched;
use crate::error::{LoadError, Reason};

/// How downloads are called before they are whole.
const PARTIAL: &str = ".partial-";
/// No download takes this long; a file that is older belongs to a pod that was killed, on a volume that outlived it.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Removes what downloads that never ended have left.
fn sweep(cache_dir: &Path) {
    let entries = std::fs::read_dir(cache_dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PARTIAL)) {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            // Another pod may have been faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Where a model of that digest is kept.
pub(super) fn place(cache_dir: &Path, hex: &str) -> PathBuf {
    cache_dir.join(hex).join("model.onnx")
}

/// There is no such file.
pub(super) fn not_found(path: &Path) -> LoadError {
    LoadError::permanent(Reason::ModelNotFound, format!("there is no file {}", path.display()))
}

/// A model over the bound.
pub(super) fn too_large(max_bytes: u64) -> LoadError {
    LoadError::permanent(
        Reason::InvalidModel,
        format!("the model is larger than {max_bytes} bytes (--max-model-bytes)"),
    )
}

fn failed(doing: &str, path: &Path, e: &std::io::Error) -> LoadError {
    LoadError::transient(Reason::LoadFailed, format!("{doing} {}: {e}", path.display()))
}

/// The hex digits of the SHA-256 of a file.
pub(super) fn hash(path: &Path, max_bytes: u64) -> Result<String, LoadError> {
    let mut file = File::open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => not_found(path),
        _ => failed("cannot open", path, &e),
    })?;
    let meta = file.metadata().map_err(|e| failed("cannot read", path, &e))?;
    if !meta.is_file() {
        return Err(LoadError::permanent(Reason::InvalidModel, format!("{} is not a file", path.display())));
    }
    if meta.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(|e| failed("cannot read", path, &e))? {
            0 => return Ok(hex::encode(hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// A download on its way to the disk.
pub(super) struct Writer {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    left: u64,
    max_bytes: u64,
    kept: bool,
}

/// A whole download that is not yet in its place.
pub(super) struct Download {
    writer: Writer,
    hex: String,
}

impl Writer {
    /// Starts a download beside its final place, so that it can be renamed there.
    pub(super) fn create(cache_dir: &Path, max_bytes: u64) -> Result<Self, LoadError> {
        std::fs::create_dir_all(cache_dir).map_err(|e| failed("cannot create", cache_dir, &e))?;
        sweep(cache_dir);
        let path = cache_dir.join(format!("{PARTIAL}{:016x}", rand::random::<u64>()));
        let file = File::create_new(&path).map_err(|e| failed("cannot create", &path, &e))?;
        Ok(Self { file, path, hasher: Sha256::new(), left: max_bytes, max_bytes, kept: false })
    }

    /// Appends a piece.
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(|| too_large(self.max_bytes))?;
        self.hasher.update(piece);
        self.file.write_all(piece).map_err(|e| failed("cannot write", &self.path, &e))
    }

    /// All pieces are there.
    pub(super) fn finish(mut self) -> Result<Download, LoadError> {
        self.file.sync_all().map_err(|e| failed("cannot write", &self.path, &e))?;
        let hex = hex::encode(std::mem::take(&mut self.hasher).finalize());
        Ok(Download { writer: self, hex })
    }
}

impl Download {
    /// The digest.
    pub(super) fn hex(&self) -> &str {
        &self.hex
    }

    /// Moves the file to its place.
    pub(super) fn keep(mut self, cache_dir: &Path) -> Result<Fetched, LoadError> {
        let path = place(cache_dir, &self.hex);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| failed("cannot create", dir, &e))?;
        }
        std::fs::rename(&self.writer.path, &path).map_err(|e| failed("cannot move the download to", &path, &e))?;
        self.writer.kept = true;
        Ok(Fetched { path, digest: format!("sha256:{}", self.hex) })
    }
}

/// What is not kept is removed: the cache is a small volume.
impl Drop for Writer {
    fn drop(&mut self) {
        if !self.kept {
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
        let mut w = Writer::create(dir.path(), 5).unwrap();
        w.write(b"abc").unwrap();
        assert_eq!(w.write(b"def").map_err(|e| e.reason), Err(Reason::InvalidModel));
        drop(w);
        assert_eq!(files(), 0);
        let mut w = Writer::create(dir.path(), 5).unwrap();
        w.write(b"abc").unwrap();
        let kept = w.finish().unwrap().keep(dir.path()).unwrap();
        assert_eq!(std::fs::read(&kept.path).unwrap(), b"abc");
        assert_eq!(files(), 1);
    }

    #[test]
    fn what_a_killed_pod_left_goes_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let leave = |name: &str, age: Duration| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        };
        leave(".partial-0", ABANDONED * 2);
        leave(".partial-1", ABANDONED / 2);
        leave("other", ABANDONED * 2);
        drop(Writer::create(dir.path(), 5).unwrap());
        let left = [".partial-0", ".partial-1", "other"].map(|name| dir.path().join(name).exists());
        assert_eq!(left, [false, true, true]);
    }
}
