//! Downloads from web servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use url::{Host, Url};

use super::Options;
use super::disk::{Download, Writer, too_large};
use crate::error::{LoadError, Reason, chain};
use crate::jobs::callback::network::permitted;

const MAX_REDIRECTS: usize = 5;

fn failed(message: String) -> LoadError {
    LoadError::transient(Reason::DownloadFailed, message)
}

/// Names of hosts to addresses: those that were asked for to any, those to which somebody redirects to public ones only. So no server leads a pod to a neighbour of
/// its, or to what tells credentials to whoever runs on a machine.
struct PublicElsewhere {
    asked_for: String,
}

impl Resolve for PublicElsewhere {
    fn resolve(&self, name: Name) -> Resolving {
        let is_asked_for = name.as_str().eq_ignore_ascii_case(&self.asked_for);
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let may: Vec<SocketAddr> =
                all.into_iter().filter(|it| is_asked_for || permitted(it.ip(), true, &[])).collect();
            if may.is_empty() {
                return Err(NOT_PUBLIC.into());
            }
            Ok(Box::new(may.into_iter()) as Addrs)
        })
    }
}

const NOT_PUBLIC: &str = "the server redirects to an address that is not public";

fn client(url: &Url) -> Result<Client, LoadError> {
    // A redirect to another scheme would leave TLS, or lead a plain address into a place that was not meant.
    let (scheme, host) = (url.scheme().to_owned(), url.host_str().unwrap_or_default().to_owned());
    let asked_for = host.clone();
    let policy = Policy::custom(move |attempt| {
        let elsewhere = attempt.url().host_str().is_some_and(|to| to != host);
        // An address needs no name to be resolved.
        let address = match attempt.url().host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if attempt.url().scheme() != scheme {
            attempt.error("the server redirects to another scheme")
        } else if elsewhere && address.is_some_and(|address| !permitted(address, true, &[])) {
            attempt.error(NOT_PUBLIC)
        } else if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    });
    let mut builder = Client::builder()
        .redirect(policy)
        .dns_resolver(PublicElsewhere { asked_for })
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
