//! Downloads from object stores: S3 and compatible stores, Google Cloud Storage, Azure Blob
//! Storage.
//!
//! Credentials and endpoints come from the usual environment variables (`AWS_*`, `GOOGLE_*`,
//! `AZURE_*`) or the node's identity.

use futures::StreamExt as _;
use object_store::{Error, ObjectStoreExt as _, parse_url_opts};
use url::Url;

use super::FetchOptions;
use super::disk::{CompletedDownload, DownloadWriter, too_large};
use crate::error::{LoadError, LoadErrorReason};

/// The environment variables with a provider's prefix. The builders also accept bare names such as
/// `token` and `region`, which may belong to something else here.
pub fn environment_settings() -> impl Iterator<Item = (String, String)> {
    let known = |name: &String| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|p| name.starts_with(p));
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(move |(k, _)| known(k))
}

fn store_error(e: &Error) -> LoadError {
    match e {
        Error::NotFound { .. } => LoadError::permanent(
            LoadErrorReason::ModelNotFound,
            format!("the object store says: {e}"),
        ),
        Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::InvalidPath { .. } => LoadError::permanent(
            LoadErrorReason::DownloadFailed,
            format!("the object store says: {e}"),
        ),
        _ => LoadError::transient(
            LoadErrorReason::DownloadFailed,
            format!("the object store says: {e}"),
        ),
    }
}

/// One attempt at a download; the client retries single requests itself.
pub(super) async fn download_object(
    url: &Url,
    options: &FetchOptions,
) -> Result<CompletedDownload, LoadError> {
    let (store, path) = parse_url_opts(url, environment_settings()).map_err(|e| store_error(&e))?;
    let found = store.get(&path).await.map_err(|e| store_error(&e))?;
    if found.meta.size > options.max_bytes {
        return Err(too_large(options.max_bytes));
    }
    let mut writer = DownloadWriter::create(&options.cache_dir, options.max_bytes)?;
    let mut pieces = found.into_stream();
    while let Some(piece) = pieces.next().await {
        writer.write(&piece.map_err(|e| store_error(&e))?)?;
    }
    writer.finish()
}
