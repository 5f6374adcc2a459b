//! Caches the optimised graph of a model: the first session computes it, all other sessions of the
//! pod read it, also after a restart of the container.
//!
//! The directory must be private to the pod. A graph that others can write could answer under the
//! digest of another model.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Largest model whose optimised graph is cached. ONNX Runtime writes the weights into the file,
/// which as a protobuf holds at most 2 GiB; and the disk space and the longer start are not worth
/// it for larger models.
const MAX_MODEL_BYTES: u64 = 256 << 20;

/// The file of one model's optimised graph.
#[derive(Debug, Clone)]
pub struct OptimizedGraphCache {
    path: PathBuf,
}

impl OptimizedGraphCache {
    /// The cache file in `dir` for the model with this digest; `None` when the model is too large
    /// or the directory is not writable.
    ///
    /// An optimised graph is specific to one version of ONNX Runtime and one kind of processor, so
    /// its name contains both. `digest` must cover the whole model; a model with data in other
    /// files is not cached.
    pub fn for_model(dir: &Path, digest: &str, model: &Path, library: &Path) -> Option<Self> {
        if fs::metadata(model).ok()?.len() > MAX_MODEL_BYTES {
            return None;
        }
        let hex = digest
            .strip_prefix("sha256:")
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        fs::create_dir_all(dir).ok()?;
        Some(Self { path: dir.join(format!("{hex}-{}.onnx", machine_fingerprint(library)?)) })
    }

    /// The file, if it exists.
    pub(super) fn cached_file(&self) -> Option<&Path> {
        self.path.is_file().then_some(&self.path)
    }

    /// The path to which a session writes the graph.
    pub(super) fn draft_path(&self) -> PathBuf {
        self.path.with_extension(format!("partial-{}", std::process::id()))
    }

    /// Moves a written graph to its final path atomically.
    pub(super) fn commit(&self, draft: &Path) {
        let kept = File::open(draft)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(draft, &self.path));
        if let Err(error) = kept {
            tracing::debug!(%error, "the optimised graph is not kept");
            let _ = fs::remove_file(draft);
        }
    }

    /// Removes a file that cannot be loaded.
    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Identifies what an optimised graph depends on besides the model: the library, by the time and
/// size of its file, and the features of the processor.
fn machine_fingerprint(library: &Path) -> Option<String> {
    let library = fs::metadata(library).ok()?;
    let cpu = fs::read_to_string("/proc/cpuinfo").ok()?;
    let can =
        |line: &&str| ["flags", "Features", "model name"].iter().any(|name| line.starts_with(name));
    let cpu: Vec<&str> = cpu.split("\n\n").next()?.lines().filter(can).collect();
    let hash = Sha256::digest(format!("{:?} {} {cpu:?}", library.modified().ok()?, library.len()));
    Some(hex::encode(hash.get(..8)?))
}
