//! Ports of the pods, with the names that Services and probes use.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A named port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name in the pod and in Services.
    pub name: &'static str,
    /// Its number in the pod.
    pub number: u16,
}

impl NamedPort {
    /// Name and number in the types of Kubernetes objects.
    pub const fn for_kubernetes(self) -> (&'static str, i32) {
        (self.name, self.number as i32)
    }

    /// Where a program listens by default: the port at every address of the pod.
    pub const fn at_every_address(self) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), self.number)
    }
}

/// Requests of clients, at gateways and at model servers.
pub const HTTP: NamedPort = NamedPort { name: "http", number: 8080 };
/// Feedback, feature rows and previews, at gateways, for clients with the token.
pub const PRIVATE: NamedPort = NamedPort { name: "private", number: 8081 };
/// Metrics and probes of the operator, of model servers and of workers.
pub const METRICS: NamedPort = NamedPort { name: "metrics", number: 9090 };
/// Metrics, probes and the state stream of gateways.
pub const GATEWAY_ADMIN: NamedPort = NamedPort { name: "admin", number: 9091 };
