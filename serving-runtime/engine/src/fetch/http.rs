//! Downloads over HTTP.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use slipway_chassis::error_chain;
use slipway_egress::{AllowList, EgressGuard};
use url::Url;

use super::FetchOptions;
use super::disk::{CompletedDownload, DownloadWriter, too_large};
use crate::error::{LoadError, LoadErrorReason};

fn download_error(message: String) -> LoadError {
    LoadError::transient(LoadErrorReason::DownloadFailed, message)
}

fn build_client(url: &Url) -> Result<Client, LoadError> {
    // Prevents a server from redirecting the pod to addresses of the cluster or to the metadata
    // service of the cloud, which hands out credentials.
    let mut builder = EgressGuard::for_trusted_url(AllowList::public())
        .client_builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .user_agent(concat!("slipway-runtime/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "http" {
        // No certificates are needed here, and an image without any must still load models over
        // http.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|e| download_error(format!("no HTTP client: {}", error_chain(&e))))
}

/// One attempt at a download.
pub(super) async fn download_file(
    url: &Url,
    options: &FetchOptions,
) -> Result<CompletedDownload, LoadError> {
    let client = build_client(url)?;
    let request = client.get(url.clone()).send().await;
    let mut response = request.map_err(|e| {
        let hopeless = e.is_redirect();
        // The URL may carry a signature, which must not appear in the status of an object.
        let error =
            download_error(format!("the download failed: {}", error_chain(&e.without_url())));
        LoadError { permanent: hopeless, ..error }
    })?;
    let status = response.status();
    if !status.is_success() {
        return Err(status_error(status));
    }
    if response.content_length().is_some_and(|n| n > options.max_bytes) {
        return Err(too_large(options.max_bytes));
    }
    let mut writer = DownloadWriter::create(&options.cache_dir, options.max_bytes)?;
    loop {
        let piece = response.chunk().await.map_err(|e| {
            download_error(format!("the download broke off: {}", error_chain(&e.without_url())))
        })?;
        match piece {
            Some(piece) => writer.write(&piece)?,
            None => return writer.finish(),
        }
    }
}

fn status_error(status: StatusCode) -> LoadError {
    let message = format!("the server answers {status}");
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            LoadError::permanent(LoadErrorReason::ModelNotFound, message)
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => download_error(message),
        s if s.is_client_error() => LoadError::permanent(LoadErrorReason::DownloadFailed, message),
        _ => download_error(message),
    }
}
