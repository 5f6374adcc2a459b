//! The optimised graph of a model: worked out by the first session, read by all others of the pod
//! and by those after its container's restart.
//!
//! Its directory must be the pod's own. A graph that others could write would answer under the
//! digest of a model that it is not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// ONNX Runtime writes weights into the file, which as a protobuf holds at most 2 GiB; and disk and
/// start are not worth it for more than this.
const MAX_MODEL_BYTES: u64 = 256 << 20;

/// Where the optimised graph of one model is kept.
#[derive(Debug, Clone)]
pub struct OptimizedGraphCache {
    path: PathBuf,
}

impl OptimizedGraphCache {
    /// The place for the model of that digest in `dir`; none when it is not worth keeping or the
    /// directory cannot be written.
    ///
    /// An optimised graph is for one ONNX Runtime on one kind of processor, so both are in its
    /// name. `digest` must cover all of the model: with data outside of the file there is no place
    /// for it.
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

    /// The file, when it is there.
    pub(super) fn cached_file(&self) -> Option<&Path> {
        self.path.is_file().then_some(&self.path)
    }

    /// Where a session may write it.
    pub(super) fn draft_path(&self) -> PathBuf {
        self.path.with_extension(format!("partial-{}", std::process::id()))
    }

    /// Takes a draft over, whole or not at all.
    pub(super) fn commit(&self, draft: &Path) {
        let kept = File::open(draft)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(draft, &self.path));
        if let Err(error) = kept {
            tracing::debug!(%error, "the optimised graph is not kept");
            let _ = fs::remove_file(draft);
        }
    }

    /// Forgets a file that cannot be loaded.
    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What an optimised graph depends on besides the model: the library, by the time and size of its
/// file, and what the processor can do.
fn machine_fingerprint(library: &Path) -> Option<String> {
    let library = fs::metadata(library).ok()?;
    let cpu = fs::read_to_string("/proc/cpuinfo").ok()?;
    let can =
        |line: &&str| ["flags", "Features", "model name"].iter().any(|name| line.starts_with(name));
    let cpu: Vec<&str> = cpu.split("\n\n").next()?.lines().filter(can).collect();
    let hash = Sha256::digest(format!("{:?} {} {cpu:?}", library.modified().ok()?, library.len()));
    Some(hex::encode(hash.get(..8)?))
}
