//! Downloads from web servers.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use slipway_egress::{AllowList, EgressGuard};
use url::Url;

use super::Options;
use super::disk::{Download, Writer, too_large};
use crate::error::{LoadError, Reason, chain};

fn failed(message: String) -> LoadError {
    LoadError::transient(Reason::DownloadFailed, message)
}

fn client(url: &Url) -> Result<Client, LoadError> {
    // So no server leads a pod to a neighbour of its, or to what tells credentials to whoever runs on a machine.
    let mut builder = EgressGuard::for_trusted_url(AllowList::public())
        .client_builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .user_agent(concat!("slipway-runtime/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "http" {
        // No certificates are needed, and an image without any must still load over http.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|e| failed(format!("no HTTP client: {}", chain(&e))))
}

/// One attempt.
pub(super) async fn get(url: &Url, options: &Options) -> Result<Download, LoadError> {
    let client = client(url)?;
    let request = client.get(url.clone()).send().await;
    let mut response = request.map_err(|e| {
        let hopeless = e.is_redirect();
        // The URL may carry a signature; it must not get into the status of an object.
        let error = failed(format!("the download failed: {}", chain(&e.without_url())));
        LoadError { permanent: hopeless, ..error }
    })?;
    let status = response.status();
    if !status.is_success() {
        return Err(refused(status));
    }
    if response.content_length().is_some_and(|n| n > options.max_bytes) {
        return Err(too_large(options.max_bytes));
    }
    let mut writer = Writer::create(&options.cache_dir, options.max_bytes)?;
    loop {
        let piece = response
            .chunk()
            .await
            .map_err(|e| failed(format!("the download broke off: {}", chain(&e.without_url()))))?;
        match piece {
            Some(piece) => writer.write(&piece)?,
            None => return writer.finish(),
        }
    }
}

fn refused(status: StatusCode) -> LoadError {
    let message = format!("the server answers {status}");
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => LoadError::permanent(Reason::ModelNotFound, message),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => failed(message),
        s if s.is_client_error() => LoadError::permanent(Reason::DownloadFailed, message),
        _ => failed(message),
    }
}
