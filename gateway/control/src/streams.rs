//! The open streams of `/v1/state`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The open streams. When there are too many, the oldest stream of the peer with the most streams
/// is closed for the new one, so that no peer can exclude the operator.
#[derive(Debug)]
pub struct StateStreams {
    limit: usize,
    open: Mutex<OpenStreams>,
}

#[derive(Debug, Default)]
struct OpenStreams {
    next: u64,
    streams: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

impl StateStreams {
    /// Allows at most `limit` streams at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    /// Opens a stream; closes another one if necessary.
    pub fn open(self: &Arc<Self>, peer: IpAddr) -> StateStreamGuard {
        let replaced = CancellationToken::new();
        let mut open = self.open.lock();
        let id = open.next;
        open.next += 1;
        while open.streams.len() >= self.limit.max(1) {
            open.evict_one(peer);
        }
        open.streams.insert(id, (peer, replaced.clone()));
        StateStreamGuard { streams: Arc::clone(self), id, replaced }
    }
}

impl OpenStreams {
    fn evict_one(&mut self, newcomer: IpAddr) {
        // The new stream counts: among many peers with one stream each, a peer that opens a second
        // one loses its first.
        let mut held = HashMap::from([(newcomer, 1)]);
        for (peer, _) in self.streams.values() {
            *held.entry(*peer).or_insert(0_usize) += 1;
        }
        // Of several equal ones, the oldest.
        let victim = self.streams.iter().rev().max_by_key(|(_, (peer, _))| held.get(peer).copied());
        if let Some(id) = victim.map(|(id, _)| *id)
            && let Some((_, replaced)) = self.streams.remove(&id)
        {
            replaced.cancel();
        }
    }
}

/// An open stream; dropping it closes the stream.
#[derive(Debug)]
pub struct StateStreamGuard {
    streams: Arc<StateStreams>,
    id: u64,
    replaced: CancellationToken,
}

impl StateStreamGuard {
    /// Cancelled when a newer stream replaces this one.
    pub fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }
}

impl Drop for StateStreamGuard {
    fn drop(&mut self) {
        self.streams.open.lock().streams.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_peer_that_holds_most_makes_room() {
        let streams = StateStreams::new(4);
        let operator = streams.open(peer(1));
        let strangers: Vec<_> = (0..3).map(|_| streams.open(peer(2))).collect();
        let again = streams.open(peer(1));
        let ended = |place: &StateStreamGuard| place.replaced().is_cancelled();
        assert_eq!(strangers.iter().map(ended).collect::<Vec<_>>(), [true, false, false]);
        let more: Vec<_> = (0..100).map(|_| streams.open(peer(2))).collect();
        assert!(!ended(&operator) && !ended(&again), "strangers take the places of strangers");
        assert_eq!(more.iter().filter(|place| !ended(place)).count(), 2);
    }

    #[test]
    fn of_many_peers_of_one_stream_who_comes_again_loses_the_own_one() {
        let streams = StateStreams::new(3);
        let places: Vec<_> = (1..=3).map(|n| streams.open(peer(n))).collect();
        let _again = streams.open(peer(2));
        let ended: Vec<_> = places.iter().map(|place| place.replaced().is_cancelled()).collect();
        assert_eq!(ended, [false, true, false]);
        let _other = streams.open(peer(4));
        assert!(places[0].replaced().is_cancelled(), "of equals the oldest");
    }
}
