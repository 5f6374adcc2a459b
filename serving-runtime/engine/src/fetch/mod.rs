//! Fetches a model from a volume, over HTTP or from an object store, and verifies its digest.
//! Weights in files next to the graph are fetched with it.

mod disk;
mod files;
mod http;
mod store;
mod uri;

use std::path::{Path, PathBuf};
use std::time::Duration;

use slipway_chassis::backoff::{Backoff, Jitter};

use self::disk::CompletedDownload;
pub use self::files::{FetchRecord, ModelFile};
use self::files::{GRAPH_FILE, combined_digest, external_data_files, hash_model_files};
pub use self::store::environment_settings;
pub use self::uri::ModelSource;
use crate::error::{LoadError, LoadErrorReason};

/// Waits between attempts at one file. The jitter keeps the pods of a revision from coming back in
/// step.
const RETRY_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(250),
    max: Duration::from_secs(8),
    jitter: Jitter::Subtract(0.5),
};

/// What bounds a fetch.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// Directory of downloads.
    pub cache_dir: PathBuf,
    /// Directory where `pvc://` volumes are mounted.
    pub volume_root: PathBuf,
    /// Largest total size of a model's files, in bytes.
    pub max_bytes: u64,
    /// Time limit for all attempts together.
    pub timeout: Duration,
    /// Attempts per file.
    pub attempts: u32,
    /// Whether files next to the graph that it refers to are part of the model.
    pub external_data: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOnDisk {
    /// The graph's file.
    pub path: PathBuf,
    /// `sha256:<hex>` of the model: the hash of its file, or of the list of its files.
    pub digest: String,
    pub files: Vec<ModelFile>,
}

/// Parses a pinned digest into its hex digits; `None` without a pin.
fn parse_pin(digest: &str) -> Result<Option<String>, LoadError> {
    if digest.is_empty() {
        return Ok(None);
    }
    let hex = digest.strip_prefix("sha256:").map(str::to_ascii_lowercase);
    let hex = hex.filter(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.map(Some).ok_or_else(|| {
        LoadError::permanent(
            LoadErrorReason::DigestMismatch,
            format!("digest {digest:?} is not sha256: and 64 hex digits"),
        )
    })
}

fn verify_digest(pin: Option<&str>, hex: &str, source: &str) -> Result<(), LoadError> {
    match pin.filter(|want| *want != hex) {
        Some(want) => {
            let message = format!(
                "{source} has digest sha256:{hex}, not sha256:{want}; was the file changed after it was pinned?"
            );
            Err(LoadError::permanent(LoadErrorReason::DigestMismatch, message))
        }
        None => Ok(()),
    }
}

/// Fetches the model at `uri` to disk.
pub async fn fetch_model(
    uri: &str,
    digest: &str,
    options: &FetchOptions,
) -> Result<ModelOnDisk, LoadError> {
    let pin = parse_pin(digest)?;
    let source = ModelSource::parse(uri, &options.volume_root)?;
    if let ModelSource::Path(path) = &source {
        return open_local(path, pin.as_deref(), options);
    }
    if let Some(hex) = &pin
        && let Some(fetched) = open_cached(hex, options)
    {
        return Ok(fetched);
    }
    let parts = tokio::time::timeout(options.timeout, download_all(&source, options))
        .await
        .map_err(|_| {
            let message =
                format!("{source} was not downloaded within {} s", options.timeout.as_secs());
            LoadError::transient(LoadErrorReason::DownloadFailed, message)
        })??;
    let file = |(path, part): &(String, CompletedDownload)| ModelFile {
        path: path.clone(),
        bytes: part.bytes(),
        hex: part.hex().to_owned(),
    };
    let files: Vec<_> = parts.iter().map(file).collect();
    let hex = combined_digest(&files);
    verify_digest(pin.as_deref(), &hex, &source.to_string())?;
    let path = disk::install_model(parts, &hex, &options.cache_dir)?;
    Ok(ModelOnDisk { path, digest: format!("sha256:{hex}"), files })
}

/// `sha256:<hex>` of the model in a file, including weights next to it, of at most
/// `options.max_bytes` together.
///
/// # Errors
/// When it cannot be read or is larger.
pub fn hash_model(path: &Path, options: &FetchOptions) -> Result<String, LoadError> {
    Ok(format!("sha256:{}", combined_digest(&hash_model_files(path, options)?)))
}

fn open_local(
    path: &Path,
    pin: Option<&str>,
    options: &FetchOptions,
) -> Result<ModelOnDisk, LoadError> {
    let path = if path.is_dir() { path.join(GRAPH_FILE) } else { path.to_owned() };
    let files = hash_model_files(&path, options)?;
    let hex = combined_digest(&files);
    verify_digest(pin, &hex, &path.display().to_string())?;
    Ok(ModelOnDisk { path, digest: format!("sha256:{hex}"), files })
}

/// Opens a model in the cache. It is hashed again, because the node may have crashed while it was
/// written.
fn open_cached(hex: &str, options: &FetchOptions) -> Option<ModelOnDisk> {
    open_local(&disk::model_path(&options.cache_dir, hex), Some(hex), options).ok()
}

/// Downloads the graph, then the files that it refers to.
async fn download_all(
    source: &ModelSource,
    options: &FetchOptions,
) -> Result<Vec<(String, CompletedDownload)>, LoadError> {
    let graph = download_with_retries(source, options).await?;
    let beside = external_data_files(graph.path(), options)?;
    let mut left = options.max_bytes.saturating_sub(graph.bytes());
    let mut parts = vec![(GRAPH_FILE.to_owned(), graph)];
    for name in beside {
        let part = download_with_retries(
            &source.sibling(&name),
            &FetchOptions { max_bytes: left, ..options.clone() },
        )
        .await;
        let part = part.map_err(|e| LoadError {
            message: format!("the model's weights in {name:?}: {}", e.message),
            ..e
        })?;
        left = left.saturating_sub(part.bytes());
        parts.push((name, part));
    }
    Ok(parts)
}

/// Retries until the download succeeds, fails permanently, or the attempts are used up.
async fn download_with_retries(
    source: &ModelSource,
    options: &FetchOptions,
) -> Result<CompletedDownload, LoadError> {
    let mut attempt = 1;
    loop {
        let result = match source {
            ModelSource::Http(url) => http::download_file(url, options).await,
            ModelSource::Store(url) => store::download_object(url, options).await,
            ModelSource::Path(path) => Err(disk::not_found(path)),
        };
        match result {
            Err(error) if !error.permanent && attempt < options.attempts => {
                let pause = RETRY_BACKOFF.random_delay(attempt);
                tracing::warn!(%error, attempt, pause_ms = pause.as_millis(), "the download failed and is tried again");
                tokio::time::sleep(pause).await;
                attempt += 1;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path) -> FetchOptions {
        FetchOptions {
            cache_dir: dir.join("cache"),
            volume_root: dir.to_owned(),
            max_bytes: 100,
            timeout: Duration::from_secs(5),
            attempts: 1,
            external_data: true,
        }
    }

    const HEX_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[tokio::test]
    async fn local_files_are_verified_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.onnx");
        std::fs::write(&file, "abc").unwrap();
        let o = options(dir.path());
        let digest = format!("sha256:{HEX_ABC}");
        let files = vec![ModelFile { path: GRAPH_FILE.into(), bytes: 3, hex: HEX_ABC.into() }];
        let want = ModelOnDisk { path: file.clone(), digest: digest.clone(), files };
        for uri in [
            file.display().to_string(),
            format!("file://{}", file.display()),
            dir.path().display().to_string(),
        ] {
            assert_eq!(fetch_model(&uri, &digest, &o).await.unwrap(), want);
            assert_eq!(fetch_model(&uri, "", &o).await.unwrap(), want);
        }
        std::fs::create_dir(dir.path().join("claim")).unwrap();
        std::fs::copy(&file, dir.path().join("claim/m.onnx")).unwrap();
        assert_eq!(fetch_model("pvc://claim/m.onnx", &digest, &o).await.unwrap().digest, digest);

        let reason =
            |r: Result<ModelOnDisk, LoadError>| r.map_err(|e| (e.reason, e.permanent)).unwrap_err();
        let uri = file.display().to_string();
        let other = format!("sha256:{}", "0".repeat(64));
        assert_eq!(
            reason(fetch_model(&uri, &other, &o).await),
            (LoadErrorReason::DigestMismatch, true)
        );
        assert_eq!(
            reason(fetch_model(&uri, "md5:00", &o).await),
            (LoadErrorReason::DigestMismatch, true)
        );
        assert_eq!(
            reason(fetch_model("/nowhere/model.onnx", "", &o).await),
            (LoadErrorReason::ModelNotFound, true)
        );
        std::fs::write(&file, [0; 101]).unwrap();
        assert_eq!(reason(fetch_model(&uri, "", &o).await), (LoadErrorReason::InvalidModel, true));
    }

    #[test]
    fn a_damaged_cache_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let o = options(dir.path());
        let place = disk::model_path(&o.cache_dir, HEX_ABC);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "ab").unwrap();
        assert_eq!(open_cached(HEX_ABC, &o), None);
        std::fs::write(&place, "abc").unwrap();
        assert!(open_cached(HEX_ABC, &o).is_some());
    }

    #[test]
    fn pauses_grow_within_bounds() {
        for attempt in 1..20 {
            let pause = RETRY_BACKOFF.random_delay(attempt);
            assert!(
                pause >= Duration::from_millis(125) && pause <= Duration::from_secs(8),
                "{pause:?}"
            );
        }
    }
}
