//! The files of a model, and the digest over all of them.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{FetchOptions, disk};
use crate::error::{LoadError, LoadErrorReason};

/// The name of the graph among the files of a model, whatever the file's own name: the graph is
/// recognised as the file that refers to the others.
pub(super) const GRAPH_FILE: &str = "model.onnx";

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Path relative to the graph's directory, separated by `/`; `model.onnx` for the graph
    /// itself.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// The hex digits of the file's SHA-256.
    pub hex: String,
}

/// The hex digits of a model's digest. For a single file it is the file's SHA-256; for several
/// files it is the SHA-256 of a list with one line `<path> <bytes> <hex>\n` per file, sorted by
/// path.
pub(super) fn combined_digest(files: &[ModelFile]) -> String {
    if let [only] = files {
        return only.hex.clone();
    }
    let mut lines: Vec<_> =
        files.iter().map(|file| format!("{} {} {}\n", file.path, file.bytes, file.hex)).collect();
    lines.sort();
    hex::encode(Sha256::digest(lines.concat()))
}

/// The files next to the graph in `path` that hold its weights. Empty when the options exclude
/// them, and when the file is no valid model: loading it reports that.
pub(super) fn external_data_files(
    path: &Path,
    options: &FetchOptions,
) -> Result<Vec<String>, LoadError> {
    if !options.external_data {
        return Ok(Vec::new());
    }
    let named = slipway_onnx::external_files(path).unwrap_or_default();
    match named.iter().find(|name| *name == GRAPH_FILE) {
        Some(name) => {
            let message = format!(
                "the model keeps weights in {name:?}, which is the name of the graph itself; save it under another name"
            );
            Err(LoadError::permanent(LoadErrorReason::InvalidModel, message))
        }
        None => Ok(named),
    }
}

/// Hashes the graph in `path` and the files that it refers to.
pub(super) fn hash_model_files(
    path: &Path,
    options: &FetchOptions,
) -> Result<Vec<ModelFile>, LoadError> {
    let mut left = options.max_bytes;
    let mut hashed = |name: &str, file: &Path| -> Result<ModelFile, LoadError> {
        let (hex, bytes) = disk::hash_file(file, left)?;
        left = left.saturating_sub(bytes);
        Ok(ModelFile { path: name.to_owned(), bytes, hex })
    };
    let mut files = vec![hashed(GRAPH_FILE, path)?];
    let directory = path.parent().unwrap_or(Path::new("."));
    for name in external_data_files(path, options)? {
        let file = directory.join(&name);
        if !is_inside(directory, &file) {
            let message =
                format!("the model keeps weights in {name:?}, which leads out of its directory");
            return Err(LoadError::permanent(LoadErrorReason::InvalidModel, message));
        }
        files.push(hashed(&name, &file)?);
    }
    Ok(files)
}

/// Whether a file is below a directory after symbolic links are resolved. True for a missing file:
/// opening it reports the error.
fn is_inside(directory: &Path, file: &Path) -> bool {
    match (directory.canonicalize(), file.canonicalize()) {
        (Ok(directory), Ok(file)) => file.starts_with(directory),
        _ => true,
    }
}

/// A record of what one process has fetched, read by another process of the same pod.
#[derive(Debug, Serialize, Deserialize)]
pub struct FetchRecord {
    uri: String,
    path: PathBuf,
    digest: String,
    files: Vec<FileStamp>,
}

/// The state of a file when it was hashed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    path: PathBuf,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

impl FileStamp {
    fn for_path(path: PathBuf) -> Option<Self> {
        let meta = std::fs::metadata(&path).ok()?;
        let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self { path, bytes: meta.len(), modified: u64::try_from(modified.as_nanos()).ok()? })
    }
}

impl FetchRecord {
    /// The record of the model fetched from `uri`.
    pub fn from_fetched(uri: &str, fetched: &super::ModelOnDisk) -> Option<Self> {
        let directory = fetched.path.parent()?;
        let place = |file: &ModelFile| {
            if file.path == GRAPH_FILE { fetched.path.clone() } else { directory.join(&file.path) }
        };
        let files = fetched
            .files
            .iter()
            .map(|file| FileStamp::for_path(place(file)))
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            uri: uri.to_owned(),
            path: fetched.path.clone(),
            digest: fetched.digest.clone(),
            files,
        })
    }

    /// Reads the record from a file; `None` when it is about another URI.
    pub fn read(file: &Path, uri: &str) -> Option<Self> {
        let text = std::fs::read(file).ok()?;
        serde_json::from_slice::<Self>(&text).ok().filter(|record| record.uri == uri)
    }

    /// Writes the record atomically.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        let draft = file.with_extension("partial");
        std::fs::write(&draft, serde_json::to_vec(self)?)?;
        std::fs::rename(&draft, file)
    }

    /// `sha256:<hex>` of the fetched model.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The path of the graph, if no file was modified since the fetch.
    pub fn unchanged_path(&self) -> Option<&Path> {
        let same = self
            .files
            .iter()
            .all(|stamp| FileStamp::for_path(stamp.path.clone()).as_ref() == Some(stamp));
        (same && !self.files.is_empty()).then_some(self.path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64, hex: &str) -> ModelFile {
        ModelFile { path: path.into(), bytes, hex: hex.into() }
    }

    #[test]
    fn one_file_is_its_hash_and_several_are_the_hash_of_their_list() {
        assert_eq!(combined_digest(&[file(GRAPH_FILE, 3, "aa")]), "aa");
        let (graph, data) = (file(GRAPH_FILE, 3, "aa"), file("model.onnx.data", 16, "bb"));
        // printf 'model.onnx 3 aa\nmodel.onnx.data 16 bb\n' | sha256sum
        let want = hex::encode(Sha256::digest("model.onnx 3 aa\nmodel.onnx.data 16 bb\n"));
        assert_eq!(combined_digest(&[graph.clone(), data.clone()]), want);
        assert_eq!(combined_digest(&[data.clone(), graph.clone()]), want, "in whatever order");
        assert_ne!(combined_digest(&[graph.clone(), file("model.onnx.data", 16, "bc")]), want);
        assert_ne!(combined_digest(&[graph, file("other", 16, "bb")]), want);
    }

    #[test]
    fn a_record_holds_until_a_file_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.onnx");
        std::fs::write(&path, "abc").unwrap();
        let fetched = super::super::ModelOnDisk {
            path: path.clone(),
            digest: "sha256:00".into(),
            files: vec![file(GRAPH_FILE, 3, "aa")],
        };
        let record = dir.path().join("record.json");
        FetchRecord::from_fetched("pvc://c/m.onnx", &fetched).unwrap().write(&record).unwrap();
        assert!(FetchRecord::read(&record, "pvc://c/other").is_none());
        let read = FetchRecord::read(&record, "pvc://c/m.onnx").unwrap();
        assert_eq!((read.digest(), read.unchanged_path()), ("sha256:00", Some(path.as_path())));
        std::fs::write(&path, "abcd").unwrap();
        assert_eq!(read.unchanged_path(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unchanged_path(), None);
        std::fs::write(&record, "{").unwrap();
        assert!(FetchRecord::read(&record, "pvc://c/m.onnx").is_none());
    }
}
