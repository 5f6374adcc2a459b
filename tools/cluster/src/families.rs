//! The IP families of a cluster: IPv4, or IPv4 and IPv6.

use std::net::{IpAddr, Ipv6Addr};

use crate::error::{HarnessError, Result};

/// Environment variable that selects the families: `ipv4`, `dual`, `dual-ipv6`.
pub const VARIABLE: &str = "IP_FAMILIES";
/// Addresses of pods.
pub const POD_CIDR: &str = "fd00:10:244::/56";
/// The part of [`POD_CIDR`] of the first node.
pub const NODE_POD_CIDR: &str = "fd00:10:244::/64";
/// Addresses of Services.
pub const SERVICE_CIDR: &str = "fd00:10:96::/112";
/// Address of the Service `kubernetes` when IPv6 is the first family.
pub const API_SERVICE_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1);
/// The host's end of the link.
pub const HOST_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, 1);
/// The node's end of the link.
pub const NODE_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, 2);

/// IP families of pods and Services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpFamilies {
    /// Only IPv4.
    #[default]
    Ipv4,
    /// Both; IPv4 is preferred.
    Dual,
    /// Both; IPv6 is preferred, so pods are reached at IPv6 addresses.
    DualIpv6,
}

impl IpFamilies {
    /// The families that the environment selects.
    pub fn from_env() -> Result<Self> {
        Self::parse(std::env::var(VARIABLE).unwrap_or_default().as_str())
    }

    fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "ipv4" => Ok(Self::Ipv4),
            "dual" => Ok(Self::Dual),
            "dual-ipv6" => Ok(Self::DualIpv6),
            other => Err(HarnessError::Families(other.to_owned())),
        }
    }

    pub fn has_ipv6(self) -> bool {
        self != Self::Ipv4
    }

    /// Addresses or ranges of the families, in the format of the arguments of Kubernetes'
    /// components.
    pub fn join_addresses(self, ipv4: impl ToString, ipv6: impl ToString) -> String {
        let (ipv4, ipv6) = (ipv4.to_string(), ipv6.to_string());
        match self {
            Self::Ipv4 => ipv4,
            Self::Dual => format!("{ipv4},{ipv6}"),
            Self::DualIpv6 => format!("{ipv6},{ipv4}"),
        }
    }

    /// The address of the first family.
    pub fn first_address(self, ipv4: impl Into<IpAddr>, ipv6: impl Into<IpAddr>) -> IpAddr {
        if self == Self::DualIpv6 { ipv6.into() } else { ipv4.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_family_is_first() {
        let of = |text: &str| IpFamilies::parse(text).unwrap();
        assert_eq!(of("").join_addresses("a", "b"), "a");
        assert_eq!(of("dual").join_addresses("a", "b"), "a,b");
        assert_eq!(of("dual-ipv6").join_addresses("a", "b"), "b,a");
        assert!(
            of("dual-ipv6").first_address([10, 0, 0, 1], NODE_IP).is_ipv6()
                && !of("ipv4").has_ipv6()
        );
        assert!(IpFamilies::parse("ipv6").unwrap_err().to_string().contains("dual-ipv6"));
    }
}
