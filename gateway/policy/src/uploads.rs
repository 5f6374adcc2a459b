//! Requests whose bodies are still arriving hold a permit without doing work. When no permit is
//! left, the client with the most such requests loses one to a client with fewer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use slab::Slab;

use crate::share::RequestPermit;

/// The arriving bodies of one ModelDeployment.
#[derive(Debug, Default)]
pub struct PendingUploads(Mutex<UploadState>);

#[derive(Debug, Default)]
struct UploadState {
    /// Increases with each body.
    next: u64,
    entries: Slab<UploadEntry>,
}

#[derive(Debug)]
struct UploadEntry {
    number: u64,
    peer: IpAddr,
    permit: Arc<RequestPermit>,
    ended: bool,
    waker: Option<Waker>,
}

/// An arriving body; dropping the guard ends its registration.
#[derive(Debug)]
pub struct UploadGuard {
    uploads: Arc<PendingUploads>,
    key: usize,
}

impl PendingUploads {
    /// Registers an arriving body and the permit of its request.
    pub fn register(self: &Arc<Self>, peer: IpAddr, place: &Arc<RequestPermit>) -> UploadGuard {
        let mut state = self.0.lock();
        state.next += 1;
        let entry = UploadEntry {
            number: state.next,
            peer,
            permit: Arc::clone(place),
            ended: false,
            waker: None,
        };
        UploadGuard { uploads: Arc::clone(self), key: state.entries.insert(entry) }
    }

    /// Ends the oldest arriving body of the client with the most of them, and transfers its permit
    /// to a client with fewer.
    pub fn reclaim_permit(&self, peer: IpAddr) -> Option<Arc<RequestPermit>> {
        let mut state = self.0.lock();
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for (_, entry) in state.entries.iter().filter(|(_, entry)| !entry.ended) {
            *held.entry(entry.peer).or_default() += 1;
        }
        // The difference must be at least two; otherwise two clients would evict each other.
        let least = held.get(&peer).copied().unwrap_or_default() + 2;
        let (largest, _) =
            held.into_iter().filter(|(_, held)| *held >= least).max_by_key(|(_, held)| *held)?;
        let of_largest =
            state.entries.iter_mut().filter(|(_, entry)| !entry.ended && entry.peer == largest);
        let mut oldest: Vec<_> = of_largest.map(|(_, entry)| entry).collect();
        oldest.sort_unstable_by_key(|entry| entry.number);
        // A request that has just been answered has no permit any more.
        oldest.into_iter().find_map(|entry| {
            entry.ended = true;
            entry.waker.take().into_iter().for_each(Waker::wake);
            entry.permit.transfer()
        })
    }
}

impl UploadGuard {
    /// Completes when the body has lost its permit.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.uploads.0.lock();
        let Some(entry) = state.entries.get_mut(self.key) else { return Poll::Ready(()) };
        if entry.ended {
            return Poll::Ready(());
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for UploadGuard {
    fn drop(&mut self) {
        self.uploads.0.lock().entries.try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::{CapacityPool, PoolShare};

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn ended(arriving: &UploadGuard) -> bool {
        arriving.poll_ended(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_largest_gives_its_oldest_to_one_that_has_fewer() {
        let (share, uploads) =
            (PoolShare::new(&CapacityPool::new(9)), Arc::new(PendingUploads::default()));
        let places: Vec<_> = std::iter::from_fn(|| RequestPermit::acquire(&share)).collect();
        assert_eq!(places.len(), 6);
        let mut bodies: Vec<_> =
            places.iter().map(|place| uploads.register(peer(1), place)).collect();
        let first = uploads.reclaim_permit(peer(2)).unwrap();
        let of_two = uploads.register(peer(2), &first);
        assert_eq!(
            bodies.iter().map(ended).collect::<Vec<_>>(),
            [true, false, false, false, false, false]
        );
        // A client's later bodies do not end its earlier ones, nor do those of clients with nearly
        // as many.
        assert!(uploads.reclaim_permit(peer(1)).is_none());
        // A request whose body has arrived completely is being processed, and stays.
        drop(bodies.remove(1));
        let second = uploads.reclaim_permit(peer(3)).unwrap();
        assert_eq!(bodies.iter().map(ended).collect::<Vec<_>>(), [true, true, false, false, false]);
        bodies.truncate(3);
        assert!(uploads.reclaim_permit(peer(2)).is_none());
        assert!(!ended(&of_two));
        assert_eq!(share.used(), 6);
        drop((places, first, second, of_two, bodies));
        assert_eq!(share.used(), 0);
        assert!(uploads.0.lock().entries.is_empty());
    }

    #[test]
    fn who_has_no_place_gives_none() {
        let (share, uploads) =
            (PoolShare::new(&CapacityPool::new(9)), Arc::new(PendingUploads::default()));
        let places: Vec<_> = std::iter::from_fn(|| RequestPermit::acquire(&share)).collect();
        let _bodies: Vec<_> = places.iter().map(|place| uploads.register(peer(1), place)).collect();
        places[0].release();
        let passed_on = uploads.reclaim_permit(peer(2));
        assert!(passed_on.is_some());
        assert_eq!(share.used(), 5);
    }
}
