//! Names to addresses that may be connected to.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::allow::AllowList;

/// Why a name was not connected to.
pub(super) const REFUSED: &str = "none of the addresses of this host may be called; see --callback-allow";

/// A resolver that hands the client only addresses that the allow-list lets it connect to. The client connects to what it is handed, so a
/// name that changes its address between a check and the connection gains nothing. (Addresses in URLs do not come by here;
/// [`AllowList::check`] has them.)
#[derive(Debug, Clone)]
pub(super) struct Guarded(pub(super) Arc<AllowList>);

pub(super) fn keep(allow: &AllowList, host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Error> {
    let kept: Vec<_> = addresses.into_iter().filter(|a| allow.connect(host, a.ip())).collect();
    if kept.is_empty() { Err(Error::new(ErrorKind::PermissionDenied, REFUSED)) } else { Ok(kept) }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str();
            // Port 0: the client puts the URL's there.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let kept = keep(&allow, host, found)?;
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

/// Whether a failed request failed because nothing was permitted.
pub(super) fn was_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(e) = next {
        if e.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::PermissionDenied) {
            return true;
        }
        next = e.source();
    }
    false
}

/// The address of an answer, checked once more: defence in depth against a client that found another way.
pub(super) fn answered_by(allow: &AllowList, host: &str, address: Option<SocketAddr>) -> bool {
    address.map(|a| a.ip()).is_none_or(|ip: IpAddr| allow.connect(host, ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_permitted_addresses_are_kept() {
        let allow = AllowList::new(&["hooks.example.org".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
        let all = |list: &[&str]| list.iter().map(|a| format!("{a}:0").parse().unwrap()).collect::<Vec<SocketAddr>>();
        let kept =
            keep(&allow, "hooks.example.org", all(&["127.0.0.1", "93.184.216.34", "10.0.0.1", "[::1]"])).unwrap();
        assert_eq!(kept, all(&["93.184.216.34", "10.0.0.1"]));
        let error = keep(&allow, "evil.test", all(&["93.184.216.34"])).unwrap_err();
        assert!(was_refused(&error));
    }
}
