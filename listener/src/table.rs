//! Who is connected, and who has to go when there is no room.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::settings::{Busy, Settings};

/// A connection that said nothing for so long is one that somebody parked: a request follows its connection at once. And one that was idle
/// for so long is not between two requests of a busy client, who would lose the next one.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// Connections that wait while all places are taken by requests in flight; as many as the kernel would hold.
const MAX_WAITING: usize = 1024;
/// Connections that are on their way out beside those in the table. Beyond it, idle ones are closed without a word.
const MAX_LEAVING: usize = 64;

/// What a connection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Nothing.
    Stay,
    /// To finish what it is at, and close.
    Leave,
    /// To close at once, unless a request has come in this very moment.
    Close,
    /// To close at once.
    Cut,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Entry {
    id: u64,
    pub(crate) peer: IpAddr,
    accepted: Instant,
    /// Whether it has a place; until then it waits.
    seated: AtomicBool,
    /// Whether the head of a request has arrived.
    spoke: AtomicBool,
    /// Requests in flight.
    active: AtomicUsize,
    /// Whether the client is slow to take what was written: the end of an answer is on its way.
    blocked: AtomicBool,
    /// When it got its place, or its last request ended, in milliseconds since it was accepted.
    idle_since: AtomicU64,
    order: AtomicU8,
    /// Wakes the connection's task: it has a place.
    pub(crate) place: Notify,
    /// Wakes the connection's task: it has an order.
    pub(crate) orders: Notify,
    /// Wakes when the head of the first request has arrived.
    pub(crate) first_request: Notify,
}

impl Entry {
    fn new(id: u64, peer: IpAddr) -> Self {
        Self {
            id,
            peer,
            accepted: Instant::now(),
            seated: AtomicBool::new(false),
            spoke: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            order: AtomicU8::new(Order::Stay as u8),
            place: Notify::new(),
            orders: Notify::new(),
            first_request: Notify::new(),
        }
    }

    pub(crate) fn is_seated(&self) -> bool {
        self.seated.load(Ordering::Acquire)
    }

    pub(crate) fn has_spoken(&self) -> bool {
        self.spoke.load(Ordering::Acquire)
    }

    /// No request in flight, and no answer on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.active.load(Ordering::Acquire) == 0 && !self.blocked.load(Ordering::Acquire)
    }

    pub(crate) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Stay,
            1 => Order::Leave,
            2 => Order::Close,
            _ => Order::Cut,
        }
    }

    fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.orders.notify_one();
    }

    fn seat(&self) {
        self.touch();
        self.seated.store(true, Ordering::Release);
        self.place.notify_one();
    }

    fn touch(&self) {
        let passed = u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(passed, Ordering::Release);
    }

    /// Notes whether the client keeps a write waiting.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.touch();
            self.blocked.store(blocked, Ordering::Release);
        }
    }

    fn idle_since(&self) -> Instant {
        self.accepted + Duration::from_millis(self.idle_since.load(Ordering::Acquire))
    }

    /// Idle for so long that its client is not between two requests.
    pub(crate) fn is_old(&self, now: Instant) -> bool {
        self.is_quiet() && now.saturating_duration_since(self.idle_since()) >= GRACE
    }

    /// When it is overdue, if nothing happens; never while a request is in flight.
    pub(crate) fn deadline(&self, settings: &Settings) -> Option<Instant> {
        if !self.has_spoken() {
            return Some(self.accepted + settings.header_timeout);
        }
        (self.active.load(Ordering::Acquire) == 0).then(|| self.idle_since() + settings.idle_timeout)
    }
}

/// The connections of one peer, the oldest first.
#[derive(Debug, Default)]
struct Peer {
    /// Those that have not sent the head of a request.
    silent: BTreeMap<u64, Arc<Entry>>,
    /// The others.
    spoken: BTreeMap<u64, Arc<Entry>>,
}

impl Peer {
    fn len(&self) -> usize {
        self.silent.len() + self.spoken.len()
    }

    fn oldest_old(&self, now: Instant) -> Option<&Arc<Entry>> {
        self.spoken.values().find(|entry| entry.is_old(now))
    }

    fn oldest_quiet(&self) -> Option<&Arc<Entry>> {
        let silent = self.silent.values().next();
        silent.or_else(|| self.spoken.values().find(|entry| entry.is_quiet()))
    }

    fn first(&self) -> Option<u64> {
        self.oldest().map(|entry| entry.id)
    }

    fn oldest(&self) -> Option<&Arc<Entry>> {
        let both = self.silent.values().next().into_iter().chain(self.spoken.values().next());
        both.min_by_key(|entry| entry.id)
    }
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    seated: usize,
    leaving: usize,
    peers: HashMap<IpAddr, Peer>,
    waiting: BTreeMap<u64, Arc<Entry>>,
}

/// All connections of a port.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) settings: Settings,
    /// How many wait, to be read without the lock.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

/// A connection's entry in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) entry: Arc<Entry>,
    pub(crate) table: Arc<Table>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.remove(&self.entry);
    }
}

impl Table {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { settings, waiting: AtomicUsize::new(0), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a new connection: it has a place, or waits for one.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr) -> Place {
        // An IPv4 client of a socket that listens on both is the same peer as one of IPv4.
        let peer = peer.to_canonical();
        let mut state = self.lock();
        let entry = Arc::new(Entry::new(state.next, peer));
        state.next += 1;
        if state.has_room(&self.settings, peer) {
            state.seat(Arc::clone(&entry));
        } else {
            if state.waiting.len() >= MAX_WAITING {
                state.turn_one_away();
            }
            state.waiting.insert(entry.id, Arc::clone(&entry));
        }
        self.waiting.store(state.waiting.len(), Ordering::Release);
        Place { entry, table: Arc::clone(self) }
    }

    /// Gives places to those who wait, as far as there is room.
    pub(crate) fn seat_waiting(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.seat_all(&mut self.lock());
        }
    }

    fn seat_all(&self, state: &mut State) {
        while let Some(entry) = state.first_waiting() {
            if !state.has_room(&self.settings, entry.peer) {
                break;
            }
            state.waiting.remove(&entry.id);
            state.seat(entry);
        }
        self.waiting.store(state.waiting.len(), Ordering::Release);
    }

    /// Makes room, when the process is out of something else than places.
    pub(crate) fn relieve(&self) {
        self.lock().evict(Busy::Wait, None);
    }

    /// The head of a request has arrived.
    pub(crate) fn begin(&self, entry: &Arc<Entry>) {
        entry.active.fetch_add(1, Ordering::AcqRel);
        if !entry.spoke.swap(true, Ordering::AcqRel) {
            let mut state = self.lock();
            if let Some(peer) = state.peers.get_mut(&entry.peer)
                && let Some(entry) = peer.silent.remove(&entry.id)
            {
                peer.spoken.insert(entry.id, entry);
            }
            entry.first_request.notify_one();
        }
    }

    /// A request has been answered, or given up.
    pub(crate) fn finish(&self, entry: &Entry) {
        entry.touch();
        if entry.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.seat_waiting();
        }
    }

    fn remove(&self, entry: &Entry) {
        let mut state = self.lock();
        if state.take(entry).is_none() && state.waiting.remove(&entry.id).is_none() && entry.is_seated() {
            state.leaving -= 1;
        }
        self.seat_all(&mut state);
    }
}

impl State {
    fn seat(&mut self, entry: Arc<Entry>) {
        entry.seat();
        self.seated += 1;
        self.peers.entry(entry.peer).or_default().silent.insert(entry.id, entry);
    }

    fn take(&mut self, entry: &Entry) -> Option<Arc<Entry>> {
        let peer = self.peers.get_mut(&entry.peer)?;
        let taken = peer.silent.remove(&entry.id).or_else(|| peer.spoken.remove(&entry.id))?;
        if peer.len() == 0 {
            self.peers.remove(&entry.peer);
        }
        self.seated -= 1;
        Some(taken)
    }

    fn held(&self, peer: &IpAddr) -> usize {
        self.peers.get(peer).map_or(0, Peer::len)
    }

    /// Whether there is room for one more connection of that peer, if need be because another one has to go.
    fn has_room(&mut self, settings: &Settings, peer: IpAddr) -> bool {
        self.seated < settings.max_connections || self.evict(settings.busy, Some(peer))
    }

    /// Sends one connection away, in favour of one more of a peer if that is why.
    fn evict(&mut self, busy: Busy, favoured: Option<IpAddr>) -> bool {
        let held = favoured.map_or(0, |peer| self.held(&peer));
        let Some((entry, order)) = self.victim(busy, held) else { return false };
        let full = self.leaving >= MAX_LEAVING;
        self.take(&entry);
        self.leaving += 1;
        entry.tell(if order == Order::Leave && full { Order::Close } else { order });
        true
    }

    /// Who has to go for one more connection of a peer that holds `held`, and how.
    fn victim(&self, busy: Busy, held: usize) -> Option<(Arc<Entry>, Order)> {
        let now = Instant::now();
        let parked =
            self.peers.values().filter(|peer| peer.silent.values().next().is_some_and(|entry| entry.is_old(now)));
        if let Some(peer) = parked.max_by_key(|peer| (peer.silent.len(), Reverse(peer.first()))) {
            return peer.silent.values().next().map(|entry| (Arc::clone(entry), Order::Close));
        }
        let mut peers: Vec<&Peer> = self.peers.values().filter(|peer| peer.len() >= held.max(1)).collect();
        peers.sort_unstable_by_key(|peer| (Reverse(peer.len()), peer.first()));
        for peer in &peers {
            // A client who has no more than the new one loses only what it does not use.
            let quiet = || peer.oldest_quiet().filter(|_| peer.len() > held);
            if let Some(entry) = peer.oldest_old(now).or_else(quiet) {
                let order = if entry.has_spoken() { Order::Leave } else { Order::Close };
                return Some((Arc::clone(entry), order));
            }
        }
        let largest = peers.first().filter(|peer| busy == Busy::Cut && peer.len() > held)?;
        largest.oldest().map(|entry| (Arc::clone(entry), Order::Cut))
    }

    /// Of those who wait, the oldest of the peer that holds least.
    fn first_waiting(&self) -> Option<Arc<Entry>> {
        self.waiting.values().min_by_key(|entry| self.held(&entry.peer)).map(Arc::clone)
    }

    /// Closes the oldest of those who wait, of the peer that waits most.
    fn turn_one_away(&mut self) {
        let mut count: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.waiting.values() {
            *count.entry(entry.peer).or_default() += 1;
        }
        let most = count.into_iter().max_by_key(|(_, count)| *count).map(|(peer, _)| peer);
        if let Some(id) = self.waiting.values().find(|entry| Some(entry.peer) == most).map(|entry| entry.id)
            && let Some(entry) = self.waiting.remove(&id)
        {
            entry.tell(Order::Cut);
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
