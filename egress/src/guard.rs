//! HTTP clients that connect only where they may.

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

/// Redirects that are followed one after another.
const MAX_REDIRECTS: usize = 5;

/// Why a redirect is not followed.
pub const NOT_PUBLIC: &str = "the server redirects to an address that is not public";
/// Why a name is not connected to.
const NO_ALLOWED_ADDRESS: &str = "none of the addresses of this host may be called";

/// Finds the addresses of a name.
pub trait HostLookup: Debug + Send + Sync {
    /// All that there are.
    fn lookup(&self, host: String) -> BoxFuture<'static, Result<Vec<IpAddr>>>;
}

/// As the system does it.
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

/// Decides which addresses a client may connect to, and is its resolver.
#[derive(Clone, Debug)]
pub struct EgressGuard(Arc<GuardState>);

#[derive(Debug)]
struct GuardState {
    allow_list: AllowList,
    /// Whether people wrote the first address, so that only where servers lead from there is bound
    /// to the list.
    first_url_trusted: bool,
    lookup: Box<dyn HostLookup>,
    history: Mutex<DownloadHistory>,
}

/// Of one download.
#[derive(Debug, Default)]
struct DownloadHistory {
    /// Whether a server has led elsewhere. What is looked up from then on may be its choice,
    /// however it spells the name.
    redirected: bool,
    /// A name keeps the addresses that it had first: its server may be the one that answers for
    /// the name, too.
    pinned: HashMap<String, Vec<IpAddr>>,
}

impl EgressGuard {
    /// For addresses that clients hand in: all of them must be on the list, nothing is followed,
    /// and there is no proxy in between.
    pub fn strict(list: AllowList) -> Self {
        Self::new(list, false, Box::new(SystemLookup))
    }

    /// For one address that people wrote into a spec: it may be anywhere, a store in the cluster is
    /// usual. Where servers lead from there must be on the list, [`AllowList::public`] as a rule,
    /// unless a server leads to itself. Make one for each download: it remembers addresses.
    ///
    /// Proxies of the environment hold, as people wrote those too; a proxy resolves names by
    /// itself, and decides where they lead.
    pub fn for_trusted_url(list: AllowList) -> Self {
        Self::new(list, true, Box::new(SystemLookup))
    }

    /// The same with another source of addresses.
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

    /// The beginning of a client that keeps to it. Addresses in a first URL are not names: a strict
    /// caller checks them by [`AllowList::check_url`].
    pub fn client_builder(&self) -> ClientBuilder {
        // Without a referer, which would tell the next server the query of the last one's URL: what
        // lets us in there.
        let builder = Client::builder().dns_resolver(self.clone()).referer(false);
        if !self.0.first_url_trusted {
            return builder.redirect(Policy::none()).no_proxy();
        }
        let guard = self.clone();
        // The client leaves authorization and cookies behind when the host, the port or the scheme
        // is another one.
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

    /// Whether an answer came from where it may: defence in depth against a client that found
    /// another way.
    pub fn is_peer_allowed(&self, host: &str, address: Option<SocketAddr>) -> bool {
        address.is_none_or(|address| self.0.allow_list.allows_connection(host, address.ip()))
    }

    /// Whether to go where a server leads.
    fn check_redirect(&self, from: &Url, to: &Url) -> std::result::Result<(), &'static str> {
        if to.scheme() != from.scheme() {
            // It would leave TLS, or lead a plain address into a place that was not meant.
            return Err("the server redirects to another scheme");
        }
        let host = to.host_str().unwrap_or_default().to_owned();
        let may = |address: &IpAddr| self.0.allow_list.allows_connection(&host, *address);
        let mut seen = self.0.history.lock();
        if Some(host.as_str()) == from.host_str() {
            // It has private addresses beside public ones, and who answers at the latter gains
            // nothing by the former.
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

    /// The addresses of a name that may be connected to.
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
        // A strict client lives long, and checks each time anew.
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
            // Port 0: the client puts the URL's there.
            let found = guard
                .allowed_addresses(host)
                .await?
                .into_iter()
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}

/// Whether a request failed because nothing was permitted.
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
