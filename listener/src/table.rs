//! The connections of a port, and the choice of the one to close when the limit is reached.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::entry::{CloseOrder, ConnectionEntry};
use crate::settings::{ListenerSettings, OverloadPolicy};

/// Maximum number of connections that wait while all slots are used by requests in flight; the same
/// as the kernel's queue.
const MAX_WAITING: usize = 1024;
/// Maximum number of closing connections in addition to those in the table. Beyond it, idle ones
/// are closed without notice.
const MAX_LEAVING: usize = 64;

/// The connections of one peer, the oldest first.
#[derive(Debug, Default)]
struct PeerConnections {
    /// Connections that have not sent the head of a request.
    before_request: BTreeMap<u64, Arc<ConnectionEntry>>,
    /// The others.
    with_request: BTreeMap<u64, Arc<ConnectionEntry>>,
}

impl PeerConnections {
    fn len(&self) -> usize {
        self.before_request.len() + self.with_request.len()
    }

    fn oldest_long_idle(&self, now: Instant) -> Option<&Arc<ConnectionEntry>> {
        self.with_request.values().find(|entry| entry.is_long_idle(now))
    }

    fn oldest_idle(&self) -> Option<&Arc<ConnectionEntry>> {
        let silent = self.before_request.values().next();
        silent.or_else(|| self.with_request.values().find(|entry| entry.is_idle()))
    }

    fn oldest_id(&self) -> Option<u64> {
        self.oldest().map(|entry| entry.id)
    }

    fn oldest(&self) -> Option<&Arc<ConnectionEntry>> {
        let both = self
            .before_request
            .values()
            .next()
            .into_iter()
            .chain(self.with_request.values().next());
        both.min_by_key(|entry| entry.id)
    }
}

#[derive(Debug, Default)]
struct TableState {
    next_id: u64,
    admitted: usize,
    leaving: usize,
    peers: HashMap<IpAddr, PeerConnections>,
    waiting: BTreeMap<u64, Arc<ConnectionEntry>>,
}

/// All connections of a port.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    pub(crate) settings: ListenerSettings,
    /// Number of waiting connections, readable without the lock.
    waiting: AtomicUsize,
    state: Mutex<TableState>,
}

/// A connection's entry in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    pub(crate) entry: Arc<ConnectionEntry>,
    pub(crate) table: Arc<ConnectionTable>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.table.remove(&self.entry);
    }
}

impl ConnectionTable {
    pub(crate) fn new(settings: ListenerSettings) -> Arc<Self> {
        Arc::new(Self { settings, waiting: AtomicUsize::new(0), state: Mutex::default() })
    }

    /// Registers a new connection: it gets a slot, or waits for one.
    pub(crate) fn register(self: &Arc<Self>, peer: IpAddr) -> ConnectionGuard {
        // An IPv4 client of a dual-stack socket is the same peer as one of an IPv4 socket.
        let peer = peer.to_canonical();
        let mut state = self.state.lock();
        let entry = Arc::new(ConnectionEntry::new(state.next_id, peer));
        state.next_id += 1;
        if state.has_room(&self.settings, peer) {
            state.admit(Arc::clone(&entry));
        } else {
            if state.waiting.len() >= MAX_WAITING {
                state.reject_one_waiting();
            }
            state.waiting.insert(entry.id, Arc::clone(&entry));
        }
        self.waiting.store(state.waiting.len(), Ordering::Release);
        ConnectionGuard { entry, table: Arc::clone(self) }
    }

    /// Assigns slots to waiting connections, as far as there is room.
    pub(crate) fn admit_waiting(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.admit_from_queue(&mut self.state.lock());
        }
    }

    fn admit_from_queue(&self, state: &mut TableState) {
        while let Some(entry) = state.first_waiting() {
            if !state.has_room(&self.settings, entry.peer) {
                break;
            }
            state.waiting.remove(&entry.id);
            state.admit(entry);
        }
        self.waiting.store(state.waiting.len(), Ordering::Release);
    }

    /// Evicts a connection when the process lacks another resource than slots.
    pub(crate) fn evict_one(&self) {
        self.state.lock().evict(OverloadPolicy::Wait, None);
    }

    /// Records that the head of a request has arrived.
    pub(crate) fn begin_request(&self, entry: &Arc<ConnectionEntry>) {
        entry.active.fetch_add(1, Ordering::AcqRel);
        if !entry.sent_request.swap(true, Ordering::AcqRel) {
            let mut state = self.state.lock();
            if let Some(peer) = state.peers.get_mut(&entry.peer)
                && let Some(entry) = peer.before_request.remove(&entry.id)
            {
                peer.with_request.insert(entry.id, entry);
            }
            entry.first_request.notify_one();
        }
    }

    /// Records that a request was answered or cancelled.
    pub(crate) fn finish_request(&self, entry: &ConnectionEntry) {
        entry.touch();
        if entry.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.admit_waiting();
        }
    }

    fn remove(&self, entry: &ConnectionEntry) {
        let mut state = self.state.lock();
        if state.take(entry).is_none()
            && state.waiting.remove(&entry.id).is_none()
            && entry.is_admitted()
        {
            state.leaving -= 1;
        }
        self.admit_from_queue(&mut state);
    }
}

impl TableState {
    fn admit(&mut self, entry: Arc<ConnectionEntry>) {
        entry.admit();
        self.admitted += 1;
        self.peers.entry(entry.peer).or_default().before_request.insert(entry.id, entry);
    }

    fn take(&mut self, entry: &ConnectionEntry) -> Option<Arc<ConnectionEntry>> {
        let peer = self.peers.get_mut(&entry.peer)?;
        let taken = peer
            .before_request
            .remove(&entry.id)
            .or_else(|| peer.with_request.remove(&entry.id))?;
        if peer.len() == 0 {
            self.peers.remove(&entry.peer);
        }
        self.admitted -= 1;
        Some(taken)
    }

    fn connections_of(&self, peer: &IpAddr) -> usize {
        self.peers.get(peer).map_or(0, PeerConnections::len)
    }

    /// Whether there is room for one more connection of that peer, if necessary by evicting another
    /// one.
    fn has_room(&mut self, settings: &ListenerSettings, peer: IpAddr) -> bool {
        self.admitted < settings.max_connections || self.evict(settings.overload_policy, Some(peer))
    }

    /// Evicts one connection, in favour of a new one of the peer `favoured` if there is one.
    fn evict(&mut self, busy: OverloadPolicy, favoured: Option<IpAddr>) -> bool {
        let held = favoured.map_or(0, |peer| self.connections_of(&peer));
        let Some((entry, order)) = self.select_victim(busy, held) else { return false };
        let full = self.leaving >= MAX_LEAVING;
        self.take(&entry);
        self.leaving += 1;
        entry.set_order(if order == CloseOrder::Graceful && full {
            CloseOrder::IfIdle
        } else {
            order
        });
        true
    }

    /// The connection to close for one more connection of a peer that has `held`, and how.
    fn select_victim(
        &self,
        busy: OverloadPolicy,
        held: usize,
    ) -> Option<(Arc<ConnectionEntry>, CloseOrder)> {
        let now = Instant::now();
        let parked = self.peers.values().filter(|peer| {
            peer.before_request.values().next().is_some_and(|entry| entry.is_long_idle(now))
        });
        if let Some(peer) =
            parked.max_by_key(|peer| (peer.before_request.len(), Reverse(peer.oldest_id())))
        {
            return peer
                .before_request
                .values()
                .next()
                .map(|entry| (Arc::clone(entry), CloseOrder::IfIdle));
        }
        let mut peers: Vec<&PeerConnections> =
            self.peers.values().filter(|peer| peer.len() >= held.max(1)).collect();
        peers.sort_unstable_by_key(|peer| (Reverse(peer.len()), peer.oldest_id()));
        for peer in &peers {
            // A peer with no more connections than the new one's loses only unused ones.
            let quiet = || peer.oldest_idle().filter(|_| peer.len() > held);
            if let Some(entry) = peer.oldest_long_idle(now).or_else(quiet) {
                let order = if entry.has_sent_request() {
                    CloseOrder::Graceful
                } else {
                    CloseOrder::IfIdle
                };
                return Some((Arc::clone(entry), order));
            }
        }
        let largest =
            peers.first().filter(|peer| busy == OverloadPolicy::Preempt && peer.len() > held)?;
        largest.oldest().map(|entry| (Arc::clone(entry), CloseOrder::Immediate))
    }

    /// Of the waiting connections, the oldest of the peer with the fewest connections.
    fn first_waiting(&self) -> Option<Arc<ConnectionEntry>> {
        self.waiting.values().min_by_key(|entry| self.connections_of(&entry.peer)).map(Arc::clone)
    }

    /// Closes the oldest waiting connection of the peer with the most waiting ones.
    fn reject_one_waiting(&mut self) {
        let mut count: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.waiting.values() {
            *count.entry(entry.peer).or_default() += 1;
        }
        let most = count.into_iter().max_by_key(|(_, count)| *count).map(|(peer, _)| peer);
        if let Some(id) =
            self.waiting.values().find(|entry| Some(entry.peer) == most).map(|entry| entry.id)
            && let Some(entry) = self.waiting.remove(&id)
        {
            entry.set_order(CloseOrder::Immediate);
        }
    }
}

#[cfg(test)]
mod tests;
