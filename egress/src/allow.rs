//! Allow-lists for outgoing requests. By default nothing is allowed.

use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

use crate::network::{IpNetwork, is_address_allowed};

/// One entry of the allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowRule {
    /// `*`: any name, at public addresses.
    Any,
    /// `hooks.example.org`: this name, at public addresses.
    Name(String),
    /// `.example.org` or `*.example.org`: any name below it, at public addresses.
    Subdomain(String),
    /// `10.0.0.0/8` or `192.0.2.1`: these addresses, with any name; the only way to allow an
    /// address that is not public.
    Network(IpNetwork),
}

impl FromStr for AllowRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        // A malformed network must not become a name that never matches.
        if text.contains('/') || text.contains(':') {
            return Err(text.parse::<IpNetwork>().err().unwrap_or_default());
        }
        let below = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
        match Host::parse(below.unwrap_or(text)) {
            Ok(Host::Domain(name)) if !name.contains('*') => {
                let name = name.trim_end_matches('.').to_owned();
                Ok(if below.is_some() { Self::Subdomain(name) } else { Self::Name(name) })
            }
            _ => Err(format!("{text:?}: want a host name, .suffix, address, network/prefix or *")),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct AllowList {
    rules: Vec<AllowRule>,
    networks: Vec<IpNetwork>,
}

impl AllowList {
    /// Creates a list of these entries.
    pub fn new(rules: &[AllowRule]) -> Self {
        let networks = rules
            .iter()
            .filter_map(|r| if let AllowRule::Network(n) = r { Some(*n) } else { None });
        Self { networks: networks.collect(), rules: rules.to_vec() }
    }

    /// Allows all public addresses, and no others.
    pub fn public() -> Self {
        Self::new(&[AllowRule::Any])
    }

    /// Whether the list has no entry.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a name may resolve to any public address.
    fn allows_name(&self, host: &str) -> bool {
        // One dot at the end denotes the root; with more it is not a valid name.
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.rules.iter().any(|rule| match rule {
            AllowRule::Any => true,
            AllowRule::Name(name) => *name == host,
            AllowRule::Subdomain(name) => host
                .strip_suffix(name.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            AllowRule::Network(_) => false,
        })
    }

    /// Whether a connection for `host` may be made to `address`.
    pub fn allows_connection(&self, host: &str, address: IpAddr) -> bool {
        is_address_allowed(address, self.allows_name(host), &self.networks)
    }

    /// Checks everything that does not need name resolution. `Url` parses unusual spellings of
    /// addresses (octal, hexadecimal, a single number) by the same rules as the client.
    ///
    /// # Errors
    /// Why the URL is refused.
    pub fn check_url(&self, text: &str) -> Result<Url, RefusedUrl> {
        let form = |why: String| Err(RefusedUrl::Invalid(why));
        let url = Url::parse(text).map_err(|e| RefusedUrl::Invalid(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return form(format!("scheme {:?}; want http or https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return form("has a user or a password".into());
        }
        let (host, fits) = match url.host() {
            Some(Host::Domain(name)) if name.contains("..") => {
                return form(format!(
                    "{name:?} is no host name: there is nothing between two of its dots"
                ));
            }
            Some(Host::Domain(name)) => {
                (name.to_owned(), self.allows_name(name) || !self.networks.is_empty())
            }
            Some(Host::Ipv4(a)) => {
                (a.to_string(), is_address_allowed(a.into(), false, &self.networks))
            }
            Some(Host::Ipv6(a)) => {
                (a.to_string(), is_address_allowed(a.into(), false, &self.networks))
            }
            None => return form("has no host".into()),
        };
        if fits { Ok(url) } else { Err(RefusedUrl::Host(host)) }
    }
}

/// Why a URL is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedUrl {
    /// It is never allowed.
    #[error("{0}")]
    Invalid(String),
    /// Its host is not on the list.
    #[error("host {0:?} is not allowed here")]
    Host(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rules: &[&str]) -> AllowList {
        AllowList::new(&rules.iter().map(|r| r.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn tricks_of_urls_are_refused() {
        // With a network on the list every name must be resolved, so the checks of names use a list
        // without one.
        let names = list(&["hooks.example.org", ".example.net"]);
        let list = list(&["hooks.example.org", ".example.net", "192.0.2.0/25"]);
        for url in [
            "ftp://hooks.example.org/",
            "file:///etc/passwd",
            "gopher://hooks.example.org/",
            "//hooks.example.org/",
            "hooks.example.org",
            "https://u@hooks.example.org/",
            "https://u:p@hooks.example.org/",
            "https://hooks.example.org@evil.test/",
            "https://hooks.example.org:443@evil.test/",
            "https://evil.test/hooks.example.org",
            "https://hooks.example.org.evil.test/",
            "https://xhooks.example.org/",
            "https://hooks.example.org../",
            "https://a.example.net.../",
            "https://a..example.net/",
            "https://evil.test#@hooks.example.org",
            "https://evil.test?hooks.example.org",
            "http://127.0.0.1/",
            "http://0177.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://017700000001/",
            "http://127.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://0xa9fea9fe/",
            "http://[fd00:ec2::254]/",
            "http://192.0.2.200/",
            "http://8.8.8.8/",
            "http://１２７.0.0.1/",
            "http://[fe80::1%25eth0]/",
            "https:///",
            "",
        ] {
            assert!(names.check_url(url).is_err(), "{url}");
            let literal = Url::parse(url)
                .ok()
                .is_some_and(|u| !matches!(u.host(), None | Some(Host::Domain(_))));
            assert!(!literal || list.check_url(url).is_err(), "{url}");
        }
        for url in [
            "https://hooks.example.org/x?y=1",
            "http://HOOKS.example.org.:8443/",
            "https://a.example.net/",
            "https://a.b.example.net/",
            "http://192.0.2.1/",
            // A backslash counts as a slash, for the check and for the client alike.
            "https://hooks.example.org\\@evil.test/",
            "http://0300.0.2.1/",
            "http://[::ffff:192.0.2.1]/",
            // Allowed if its address is in the network: the resolver decides.
            "http://example.net/",
        ] {
            assert!(list.check_url(url).is_ok(), "{url}: {:?}", list.check_url(url));
        }
        assert_eq!(
            AllowList::default().check_url("https://hooks.example.org/"),
            Err(RefusedUrl::Host("hooks.example.org".into()))
        );
    }

    #[test]
    fn the_address_that_is_connected_to_decides() {
        let address = |a: &str| a.parse::<IpAddr>().unwrap();
        let names = list(&["hooks.example.org"]);
        assert!(names.allows_connection("hooks.example.org", address("93.184.216.34")));
        assert!(
            !names.allows_connection("hooks.example.org", address("127.0.0.1")),
            "rebound to this host"
        );
        assert!(!names.allows_connection("hooks.example.org", address("169.254.169.254")));
        assert!(!names.allows_connection("evil.test", address("93.184.216.34")));
        let inside = list(&["10.0.0.0/8"]);
        assert!(inside.allows_connection("svc.ns.svc.cluster.local", address("10.3.4.5")));
        assert!(!inside.allows_connection("svc.ns.svc.cluster.local", address("11.3.4.5")));
        let any = list(&["*"]);
        assert!(
            any.allows_connection("whoever.test", address("8.8.8.8"))
                && !any.allows_connection("whoever.test", address("10.0.0.1"))
        );
    }

    #[test]
    fn rules_are_read_strictly() {
        for rule in ["", "http://x", "10.0.0.1/8", "a b", "*.*.org", "a*", "10.0.0.0/40", "host:80"]
        {
            assert!(rule.parse::<AllowRule>().is_err(), "{rule}");
        }
        assert_eq!(
            "*.Example.org".parse::<AllowRule>(),
            Ok(AllowRule::Subdomain("example.org".into()))
        );
        assert_eq!(
            ".example.org".parse::<AllowRule>(),
            Ok(AllowRule::Subdomain("example.org".into()))
        );
    }
}
