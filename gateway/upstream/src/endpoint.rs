//! The pods of one arm, and the choice among them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use slipway_gateway_policy::affinity;
use slipway_gateway_policy::config::EndpointGroup;
use slipway_gateway_policy::split::{hash_parts, mix_bits};
use tokio::time::Instant;

use crate::pool::{ConnectionPool, PodConnector};

/// How long a pod that refused a connection is the last choice.
const SUSPECT_DURATION: Duration = Duration::from_secs(2);

/// One pod: its load as this gateway sees it, and its connections.
#[derive(Debug)]
pub struct UpstreamEndpoint {
    /// The address on which it listens.
    pub addr: SocketAddr,
    /// Its connections; they are closed when the last reference to the endpoint is dropped.
    pub pool: ConnectionPool,
    in_flight: AtomicUsize,
    created: Instant,
    suspect_until: AtomicU64,
    /// Seed of its rank for a request: the same on every gateway.
    seed: u64,
}

impl UpstreamEndpoint {
    /// Creates a pod without connections.
    pub fn new(addr: SocketAddr, connector: PodConnector) -> Self {
        Self {
            addr,
            pool: ConnectionPool::new(addr, connector),
            in_flight: AtomicUsize::new(0),
            created: Instant::now(),
            suspect_until: AtomicU64::new(0),
            seed: hash_parts(&[addr.to_string().as_bytes()]),
        }
    }

    /// Makes it the last choice for a while.
    pub fn mark_suspect(&self) {
        let until = self.created.elapsed() + SUSPECT_DURATION;
        self.suspect_until.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    fn is_suspect(&self) -> bool {
        let until = self.suspect_until.load(Ordering::Relaxed);
        until != 0 && self.created.elapsed().as_millis() as u64 <= until
    }

    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A request in flight at an endpoint, until it is dropped.
#[derive(Debug)]
pub struct InFlightGuard {
    pub endpoint: Arc<UpstreamEndpoint>,
}

impl InFlightGuard {
    fn new(endpoint: &Arc<UpstreamEndpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { endpoint: Arc::clone(endpoint) }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endpoints of one arm at one moment.
#[derive(Debug, Default)]
pub struct EndpointSet {
    endpoints: Vec<Arc<UpstreamEndpoint>>,
    ready: usize,
    pick_counter: AtomicU64,
}

impl EndpointSet {
    /// The endpoints of a group: the ready ones, or else the terminating ones that still serve.
    /// Endpoints in `previous` keep their connections and load.
    pub fn new(group: &EndpointGroup, previous: &EndpointSet, connector: &PodConnector) -> Self {
        let chosen = if group.ready.is_empty() { &group.draining } else { &group.ready };
        let known = |addr: &SocketAddr| {
            previous.endpoints.iter().find(|endpoint| endpoint.addr == *addr).map(Arc::clone)
        };
        let all = chosen
            .iter()
            .map(|addr| {
                known(addr)
                    .unwrap_or_else(|| Arc::new(UpstreamEndpoint::new(*addr, connector.clone())))
            })
            .collect();
        // Carried over; otherwise every update of the endpoints would restart the same random
        // sequence.
        let dice = AtomicU64::new(previous.pick_counter.load(Ordering::Relaxed));
        Self { endpoints: all, ready: group.ready.len(), pick_counter: dice }
    }

    /// Number of endpoints that may be chosen.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is no endpoint to choose.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether there is an untried endpoint.
    pub fn has_other_than(&self, tried: &[SocketAddr]) -> bool {
        self.endpoints.iter().any(|endpoint| !tried.contains(&endpoint.addr))
    }

    /// Number of ready endpoints.
    pub fn ready_count(&self) -> usize {
        self.ready
    }

    /// Acquires each endpoint.
    pub fn acquire_all(&self) -> impl Iterator<Item = InFlightGuard> {
        self.endpoints.iter().map(InFlightGuard::new)
    }

    /// Closes connections that were unused for too long.
    pub fn sweep(&self) {
        self.endpoints.iter().for_each(|endpoint| endpoint.pool.sweep());
    }

    /// The endpoint for a fingerprint: the first in rank below its load limit, without the tried
    /// ones.
    pub fn pick_affine(&self, fingerprint: u64, tried: &[SocketAddr]) -> Option<InFlightGuard> {
        let in_flight = self.endpoints.iter().map(|endpoint| endpoint.load()).sum();
        let bound = affinity::load_bound(in_flight, self.endpoints.len());
        let usable = |endpoint: &&Arc<UpstreamEndpoint>| {
            endpoint.load() < bound && !tried.contains(&endpoint.addr) && !endpoint.is_suspect()
        };
        let first = self
            .endpoints
            .iter()
            .filter(usable)
            .max_by_key(|endpoint| affinity::rendezvous_rank(fingerprint, endpoint.seed));
        first.map(InFlightGuard::new).or_else(|| self.pick_least_loaded(tried))
    }

    /// The less loaded of two random endpoints, without the tried ones.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<InFlightGuard> {
        let roll = mix_bits(self.pick_counter.fetch_add(1, Ordering::Relaxed));
        match self.endpoints.as_slice() {
            [] => None,
            [only] => (!tried.contains(&only.addr)).then(|| InFlightGuard::new(only)),
            all => {
                let first = (roll >> 32) as usize % all.len();
                // A different endpoint than the first: an offset of 1..len.
                let second = (first + 1 + (roll as u32) as usize % (all.len() - 1)) % all.len();
                let usable = |endpoint: &UpstreamEndpoint| {
                    !tried.contains(&endpoint.addr) && !endpoint.is_suspect()
                };
                match (usable(&all[first]), usable(&all[second])) {
                    (true, true) if all[second].load() < all[first].load() => {
                        Some(InFlightGuard::new(&all[second]))
                    }
                    (true, _) => Some(InFlightGuard::new(&all[first])),
                    (false, true) => Some(InFlightGuard::new(&all[second])),
                    (false, false) => self.pick_least_loaded(tried),
                }
            }
        }
    }

    /// The least loaded untried endpoint; suspects last.
    fn pick_least_loaded(&self, tried: &[SocketAddr]) -> Option<InFlightGuard> {
        let untried = self.endpoints.iter().filter(|endpoint| !tried.contains(&endpoint.addr));
        untried
            .min_by_key(|endpoint| (endpoint.is_suspect(), endpoint.load()))
            .map(InFlightGuard::new)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn group(ready: &[u16], draining: &[u16]) -> EndpointGroup {
        let addrs = |ports: &[u16]| {
            ports.iter().map(|port| SocketAddr::from(([10, 0, 0, 1], *port))).collect()
        };
        EndpointGroup { ready: addrs(ready), draining: addrs(draining), created: 0 }
    }

    fn set(ready: &[u16], draining: &[u16]) -> EndpointSet {
        EndpointSet::new(&group(ready, draining), &EndpointSet::default(), &PodConnector::default())
    }

    #[test]
    fn draining_pods_serve_only_when_nobody_is_ready() {
        let both = set(&[1], &[2]);
        assert_eq!((both.len(), both.ready_count()), (1, 1));
        let last = set(&[], &[2]);
        assert_eq!((last.len(), last.ready_count()), (1, 0));
        assert!(set(&[], &[]).pick(&[]).is_none());
    }

    #[test]
    fn idle_pods_share_the_work_and_a_busy_one_is_spared() {
        let set = set(&[1, 2, 3, 4], &[]);
        let mut visits = HashMap::<u16, u32>::new();
        for _ in 0..4000 {
            *visits.entry(set.pick(&[]).unwrap().endpoint.addr.port()).or_default() += 1;
        }
        assert!(visits.values().all(|count| (800..1200).contains(count)), "{visits:?}");

        let busy = Arc::clone(&set.endpoints[0]);
        let _held: Vec<_> = (0..10).map(|_| InFlightGuard::new(&busy)).collect();
        assert!((0..1000).all(|_| set.pick(&[]).unwrap().endpoint.addr != busy.addr));
    }

    #[test]
    fn tried_pods_are_left_out_and_suspects_come_last() {
        let set = set(&[1, 2, 3], &[]);
        let addrs: Vec<_> = set.endpoints.iter().map(|endpoint| endpoint.addr).collect();
        set.endpoints[0].mark_suspect();
        for _ in 0..100 {
            assert_ne!(set.pick(&[]).unwrap().endpoint.addr, addrs[0]);
            assert_eq!(set.pick(&addrs[1..]).unwrap().endpoint.addr, addrs[0]);
        }
        assert!(set.pick(&addrs).is_none());
    }

    #[test]
    fn an_update_keeps_the_load_of_pods_that_stay() {
        let old = set(&[1, 2], &[]);
        let _held = InFlightGuard::new(&old.endpoints[0]);
        let new = EndpointSet::new(&group(&[1, 3], &[]), &old, &PodConnector::default());
        assert_eq!(
            new.endpoints.iter().map(|endpoint| endpoint.load()).collect::<Vec<_>>(),
            [1, 0]
        );
    }
}
