//! The other gateways of the namespace.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::RwLock;
use slipway_gateway_policy::affinity::rendezvous_rank;
use slipway_gateway_policy::split::hash_parts;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::item::FeedbackResponse;

/// Name of the port on which gateways answer each other.
const PORT: &str = slipway_contracts::ports::PRIVATE.name;
/// Time for another gateway to take a connection, and to answer.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Longest accepted answer.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Clone, Debug, Eq)]
pub struct GatewayPeer {
    /// Name of its pod.
    pub name: String,
    /// Address of its port for other gateways.
    pub addr: SocketAddr,
}

impl PartialEq for GatewayPeer {
    fn eq(&self, other: &Self) -> bool {
        self.addr == other.addr
    }
}

impl Hash for GatewayPeer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addr.hash(state);
    }
}

/// The ready gateways except this one.
#[derive(Debug)]
pub struct GatewayPeers {
    own_name: String,
    others: RwLock<Vec<GatewayPeer>>,
}

impl GatewayPeers {
    /// Creates an empty set; `own` is the name of this pod.
    pub fn new(own: &str) -> Self {
        Self { own_name: own.to_owned(), others: RwLock::default() }
    }

    /// Replaces all gateways.
    pub fn set(&self, all: impl IntoIterator<Item = GatewayPeer>) {
        let mut others: Vec<GatewayPeer> =
            all.into_iter().filter(|peer| peer.name != self.own_name).collect();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        others.dedup_by(|a, b| a.name == b.name);
        *self.others.write() = others;
    }

    /// The gateway that counts a prediction, after the first `tried` gateways in rank failed;
    /// `None` when it is this gateway. All gateways with the same set of peers return the same
    /// result.
    pub fn owner(&self, number: u64, tried: usize) -> Option<GatewayPeer> {
        let others = self.others.read();
        let of = |name: &str| rendezvous_rank(number, hash_parts(&[name.as_bytes()]));
        let mut before: Vec<_> = others.iter().map(|peer| (of(&peer.name), peer)).collect();
        let own = of(&self.own_name);
        before.retain(|(rank, _)| *rank > own);
        before.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        before.get(tried).map(|(_, peer)| (*peer).clone())
    }
}

/// The gateways in the EndpointSlices of their Service.
pub fn peers_from_slices<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Vec<GatewayPeer> {
    // A dual-stack gateway is in a slice of each address family but is one gateway: IPv4 takes
    // precedence, as for model server pods.
    let mut peers: Vec<GatewayPeer> = slices.into_iter().flat_map(peers_from_slice).collect();
    peers.sort_by(|a, b| (&a.name, a.addr).cmp(&(&b.name, b.addr)));
    peers.dedup_by(|later, earlier| later.name == earlier.name);
    peers
}

fn peers_from_slice(slice: &EndpointSlice) -> Vec<GatewayPeer> {
    let mut ports = slice.ports.iter().flatten().filter(|port| port.name.as_deref() == Some(PORT));
    let Some(port) = ports.find_map(|port| u16::try_from(port.port?).ok()) else {
        return Vec::new();
    };
    let ready = slice.endpoints.iter().filter(|endpoint| {
        endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready.unwrap_or(true))
    });
    let peer = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let name = endpoint.target_ref.as_ref()?.name.clone()?;
        Some(GatewayPeer { name, addr: SocketAddr::new(ip, port) })
    };
    ready.filter_map(peer).collect()
}

/// Sends feedback to a gateway; `None` when it does not count it.
pub async fn post_feedback<const N: usize>(
    addr: SocketAddr,
    host: &str,
    path: &str,
    headers: [(HeaderName, HeaderValue); N],
    body: Bytes,
) -> Option<FeedbackResponse> {
    let stream = timeout(TIMEOUTS.0, TcpStream::connect(addr)).await.ok()?.ok()?;
    let answer = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().ok()?;
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).ok()?);
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().extend(headers);
        let read = async {
            let response = sender.send_request(request).await.ok()?;
            let good = response.status() == StatusCode::OK;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?;
            serde_json::from_slice(&body.to_bytes()).ok().filter(|_| good)
        };
        // The connection lives as long as this request, and is dropped with it.
        tokio::select! {
            summary = read => summary,
            _ = connection => None,
        }
    };
    timeout(TIMEOUTS.1, answer).await.ok()?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn peer(name: &str) -> GatewayPeer {
        let last = name.bytes().last().unwrap_or_default();
        GatewayPeer { name: name.to_owned(), addr: SocketAddr::from(([10, 0, 0, last], 8081)) }
    }

    fn of(own: &str, all: &[&str]) -> GatewayPeers {
        let peers = GatewayPeers::new(own);
        peers.set(all.iter().map(|name| peer(name)));
        peers
    }

    #[test]
    fn all_gateways_name_the_same_one_for_an_id() {
        let all = ["a", "b", "c"];
        let mut counts = [0; 3];
        for number in 0..3000_u64 {
            let number = slipway_gateway_policy::split::mix_bits(number);
            let owners: Vec<String> = all
                .iter()
                .map(|own| {
                    of(own, &all)
                        .owner(number, 0)
                        .map_or_else(|| (*own).to_owned(), |peer| peer.name)
                })
                .collect();
            assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
            counts[all.iter().position(|name| *name == owners[0]).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_next_in_rank_stands_in_and_all_name_the_same() {
        let all = ["a", "b", "c"];
        for number in 0..300_u64 {
            let number = slipway_gateway_policy::split::mix_bits(number);
            let first = |own: &str| {
                of(own, &all).owner(number, 0).map_or_else(|| own.to_owned(), |peer| peer.name)
            };
            let gone = first("a");
            let mut stand_ins = all.iter().filter(|own| **own != gone).map(|own| {
                of(own, &all).owner(number, 1).map_or_else(|| (*own).to_owned(), |peer| peer.name)
            });
            let one = stand_ins.next().unwrap();
            assert!(one != gone && stand_ins.all(|other| other == one));
        }
    }

    #[test]
    fn alone_a_gateway_counts_everything() {
        assert_eq!(of("a", &[]).owner(1, 0), None);
        assert_eq!(of("a", &["a"]).owner(1, 0), None);
    }

    #[test]
    fn a_gateway_of_both_families_is_one_peer() {
        let slice = |family: &str, address: &str| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": {"name": "slipway-gateway-x"}, "addressType": family, "ports": [{"name": "private", "port": 8081}],
                "endpoints": [{"addresses": [address], "targetRef": {"kind": "Pod", "name": "a"}}],
            }))
            .unwrap()
        };
        let (v4, v6) = (slice("IPv4", "10.0.0.1"), slice("IPv6", "fd00::1"));
        for slices in [[&v4, &v6], [&v6, &v4]] {
            let peers = peers_from_slices(slices);
            assert_eq!(
                peers.iter().map(|peer| peer.addr.to_string()).collect::<Vec<_>>(),
                ["10.0.0.1:8081"]
            );
        }
        assert_eq!(peers_from_slices([&v6])[0].addr.to_string(), "[fd00::1]:8081");
    }

    #[test]
    fn peers_are_the_ready_pods_of_the_service() {
        let endpoint = |name: &str, ready: bool| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": name}});
        let slice = |port: &str| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": {"name": "slipway-gateway-x"}, "addressType": "IPv4",
                "ports": [{"name": port, "port": 8081}], "endpoints": [endpoint("a", true), endpoint("b", false), {"addresses": ["10.0.0.3"]}],
            }))
            .unwrap()
        };
        let peers = peers_from_slices([&slice("private"), &slice("http")]);
        assert_eq!(
            peers.iter().map(|peer| (peer.name.as_str(), peer.addr.port())).collect::<Vec<_>>(),
            [("a", 8081)]
        );
    }
}
