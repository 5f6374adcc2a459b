//! IP networks, and the addresses that must be allowed explicitly.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A range of addresses, without bits beyond its prefix; IPv4 is never written as IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork(IpNet);

/// Ranges that are never connected to unless a network of the allow-list lies within the range,
/// from the registries of special-purpose addresses (RFC 6890 and successors). The addresses of the
/// clouds' metadata services are in 169.254.0.0/16, fd00::/8 and 100.64.0.0/10, with two
/// exceptions.
const SPECIAL_PURPOSE_RANGES: [&str; 38] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "2620:4f:8000::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "4000::/2",
    "8000::/2",
    "c000::/3",
];

impl IpNetwork {
    /// Whether the network contains the address, or the IPv4 address that it maps.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    fn is_within(&self, other: &Self) -> bool {
        other.0.contains(&self.0)
    }
}

impl FromStr for IpNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network; want an address or address/prefix");
        // The standard library reads the address: `IpNet` would take 010.0.0.0 for 10.0.0.0, where
        // other programs read an octal number.
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address = address.parse::<IpAddr>().map_err(|_| wrong())?;
        let network = match prefix {
            Some(prefix) => prefix.parse().ok().and_then(|p| IpNet::new(address, p).ok()),
            None => Some(IpNet::from(address)),
        }
        .ok_or_else(wrong)?;
        if address.to_canonical() != address {
            return Err(format!("{text:?}: write the IPv4 address itself"));
        }
        let truncated = network.trunc();
        if truncated != network {
            return Err(format!("{text:?} has bits beyond its prefix; want {truncated}"));
        }
        Ok(Self(network))
    }
}

/// Whether an address may be connected to. `public` says whether the allow-list lets the host's
/// name be at any public address.
pub fn is_address_allowed(address: IpAddr, public: bool, allowed: &[IpNetwork]) -> bool {
    let address = address.to_canonical();
    let mut special = SPECIAL_PURPOSE_RANGES
        .iter()
        .filter_map(|n| n.parse::<IpNetwork>().ok())
        .filter(|n| n.contains(address))
        .peekable();
    if special.peek().is_none() {
        return public || allowed.iter().any(|n| n.contains(address));
    }
    // 0.0.0.0/0 means the whole internet, and does not allow private networks; 10.0.0.0/8 does.
    special.all(|range| allowed.iter().any(|n| n.contains(address) && n.is_within(&range)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(address: &str, public: bool, allowed: &[&str]) -> bool {
        let allowed: Vec<IpNetwork> = allowed.iter().map(|n| n.parse().unwrap()).collect();
        is_address_allowed(address.parse().unwrap(), public, &allowed)
    }

    #[test]
    fn all_special_ranges_are_valid() {
        for range in SPECIAL_PURPOSE_RANGES {
            range.parse::<IpNetwork>().unwrap();
        }
    }

    #[test]
    fn special_addresses_are_refused_to_a_name_that_is_allowed() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::ffff:0:7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!may(address, true, &[]), "{address}");
            assert!(!may(address, true, &["0.0.0.0/0", "::/0"]), "{address} by everything");
        }
        for address in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
        {
            assert!(may(address, true, &[]), "{address}");
            assert!(!may(address, false, &[]), "{address}: nothing is allowed by itself");
        }
    }

    #[test]
    fn a_network_opens_what_lies_within_it() {
        assert!(
            may("10.1.2.3", false, &["10.0.0.0/8"]) && may("10.1.2.3", false, &["10.1.2.0/24"])
        );
        assert!(!may("10.1.3.3", true, &["10.1.2.0/24"]));
        assert!(
            may("::ffff:10.1.2.3", false, &["10.0.0.0/8"]),
            "the same address in other clothes"
        );
        assert!(may("127.0.0.1", false, &["127.0.0.1"]) && !may("127.0.0.2", true, &["127.0.0.1"]));
        assert!(!may("10.0.0.1", true, &["8.0.0.0/6"]), "wider than the range that it would open");
        assert!(may("fd00::1", false, &["fd00::/8"]) && may("8.8.8.8", false, &["8.8.0.0/16"]));
        assert!(!may("8.9.8.8", false, &["8.8.0.0/16"]) && may("9.9.9.9", false, &["0.0.0.0/0"]));
    }

    #[test]
    fn networks_are_read_strictly() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.1/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "x/8",
            "1.1.1.1/",
        ] {
            assert!(text.parse::<IpNetwork>().is_err(), "{text}");
        }
        assert!("0.0.0.0/0".parse::<IpNetwork>().is_ok() && "::1".parse::<IpNetwork>().is_ok());
    }
}
