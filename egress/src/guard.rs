//! HTTP clients that connect only to allowed addresses.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use url::{Host, Url};

use crate::allow::AllowList;

/// Maximum number of consecutive redirects.
const MAX_REDIRECTS: usize = 5;

/// Why a redirect is refused.
pub const NOT_PUBLIC: &str = "the server redirects to an address that is not public";
/// Why no connection is made to a name.
const NO_ALLOWED_ADDRESS: &str = "none of the addresses of this host may be called";

/// Resolves names.
pub trait HostLookup: Debug + Send + Sync {
    /// Returns all addresses of a name.
    fn lookup(&self, host: String) -> BoxFuture<'static, Result<Vec<IpAddr>>>;
}

/// Uses the system's resolver.
#[derive(Debug)]
struct SystemLookup;

impl HostLookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, Result<Vec<IpAddr>>> {
        async move {
            Ok(tokio::net::lookup_host((host.as_str(), 0))
                .await?
                .map(|address| address.ip())
                .collect())
        }
        .boxed()
    }
}

/// Decides which addresses a client may connect to, and serves as its resolver.
#[derive(Clone, Debug)]
pub struct EgressGuard(Arc<GuardState>);

#[derive(Debug)]
struct GuardState {
    allow_list: AllowList,
    /// Whether the first URL comes from a trusted user, so that the list applies only to
    /// redirects.
    first_url_trusted: bool,
    lookup: Box<dyn HostLookup>,
    history: Mutex<DownloadHistory>,
}

/// State of one download.
#[derive(Debug, Default)]
struct DownloadHistory {
    /// Whether a redirect to another host has been followed. From then on any name may be chosen
    /// by a server, however it is spelled.
    redirected: bool,
    /// The first addresses of each name, which it keeps: its server may also control its DNS
    /// records.
    pinned: HashMap<String, Vec<IpAddr>>,
}

impl EgressGuard {
    /// For URLs of clients: all addresses must be on the list, redirects are not followed, and no
    /// proxy is used.
    pub fn strict(list: AllowList) -> Self {
        Self::new(list, false, Box::new(SystemLookup))
    }

    /// For one URL that a user wrote into a spec: it may have any address, often that of a store in
    /// the cluster. Redirects must lead to addresses on the list, normally [`AllowList::public`],
    /// except redirects to the same host. Create one for each download, because it stores
    /// addresses.
    ///
    /// Proxies of the environment are used, because they come from a user as well; a proxy resolves
    /// names itself, and decides where they lead.
    pub fn for_trusted_url(list: AllowList) -> Self {
        Self::new(list, true, Box::new(SystemLookup))
    }

    /// The same guard with another resolver.
    #[must_use]
    pub fn with_lookup(self, lookup: Box<dyn HostLookup>) -> Self {
        Self::new(self.0.allow_list.clone(), self.0.first_url_trusted, lookup)
    }

    fn new(list: AllowList, written: bool, lookup: Box<dyn HostLookup>) -> Self {
        Self(Arc::new(GuardState {
            allow_list: list,
            first_url_trusted: written,
            lookup,
            history: Mutex::default(),
        }))
    }

    /// A client builder with this guard. IP addresses in the first URL are not resolved, so a
    /// strict caller must check them with [`AllowList::check_url`].
    pub fn client_builder(&self) -> ClientBuilder {
        // Without a referer, which would send the query of the previous URL, and thus possibly its
        // credentials, to the next server.
        let builder = Client::builder().dns_resolver(self.clone()).referer(false);
        if !self.0.first_url_trusted {
            return builder.redirect(Policy::none()).no_proxy();
        }
        let guard = self.clone();
        // The client drops authorization and cookies when the host, the port or the scheme changes.
        builder.redirect(Policy::custom(move |attempt| {
            let followed = match attempt.previous() {
                [.., from] if attempt.previous().len() <= MAX_REDIRECTS => {
                    guard.check_redirect(from, attempt.url())
                }
                _ => Err("too many redirects"),
            };
            match followed {
                Ok(()) => attempt.follow(),
                Err(why) => attempt.error(why),
            }
        }))
    }

    /// Whether an answer came from an allowed address: defence in depth against a client that
    /// bypassed the resolver.
    pub fn is_peer_allowed(&self, host: &str, address: Option<SocketAddr>) -> bool {
        address.is_none_or(|address| self.0.allow_list.allows_connection(host, address.ip()))
    }

    /// Whether a redirect may be followed.
    fn check_redirect(&self, from: &Url, to: &Url) -> std::result::Result<(), &'static str> {
        if to.scheme() != from.scheme() {
            // It would leave TLS, or lead from a plain-text URL to an unintended server.
            return Err("the server redirects to another scheme");
        }
        let host = to.host_str().unwrap_or_default().to_owned();
        let may = |address: &IpAddr| self.0.allow_list.allows_connection(&host, *address);
        let mut seen = self.0.history.lock();
        if Some(host.as_str()) == from.host_str() {
            // A host with both private and public addresses keeps only the public ones, so that a
            // server at a public one cannot redirect to the private ones.
            if seen.pinned.get(&host).is_some_and(|pinned| pinned.iter().any(may)) {
                seen.pinned.entry(host.clone()).or_default().retain(may);
            }
            return Ok(());
        }
        seen.redirected = true;
        let fits = match to.host() {
            Some(Host::Ipv4(address)) => may(&address.into()),
            Some(Host::Ipv6(address)) => may(&address.into()),
            Some(Host::Domain(_)) => {
                seen.pinned.get(&host).is_none_or(|pinned| pinned.iter().all(may))
            }
            None => false,
        };
        if fits { Ok(()) } else { Err(NOT_PUBLIC) }
    }

    /// The allowed addresses of a name.
    async fn allowed_addresses(&self, host: String) -> Result<Vec<IpAddr>> {
        let host = host.to_ascii_lowercase();
        if let Some(pinned) = self.0.history.lock().pinned.get(&host) {
            return Ok(pinned.clone());
        }
        let mut found = self.0.lookup.lookup(host.clone()).await?;
        let mut seen = self.0.history.lock();
        if !self.0.first_url_trusted || seen.redirected {
            found.retain(|address| self.0.allow_list.allows_connection(&host, *address));
        }
        if found.is_empty() {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                if self.0.first_url_trusted { NOT_PUBLIC } else { NO_ALLOWED_ADDRESS },
            ));
        }
        // A strict client is long-lived, and checks each time again.
        if self.0.first_url_trusted {
            seen.pinned.insert(host, found.clone());
        }
        Ok(found)
    }
}

impl Resolve for EgressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, host) = (self.clone(), name.as_str().to_owned());
        Box::pin(async move {
            // Port 0: the client replaces it by the URL's.
            let found = guard
                .allowed_addresses(host)
                .await?
                .into_iter()
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}

/// Whether a request failed because no address was allowed.
pub fn was_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(e) = next {
        if e.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::PermissionDenied) {
            return true;
        }
        next = e.source();
    }
    false
}

#[cfg(test)]
mod tests;
