//! What all ModelDeployments of a namespace share: places for requests, and memory for their
//! bodies. None of them takes all of it.
//!
//! The bound of each is a multiple of what is free (dynamic thresholds; A. K. Choudhury and E. L.
//! Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
//! Transactions on Networking 6(2), 1998): one alone gets two thirds, two that want all get two
//! fifths each, and so on; there is always something left for the next. Nothing has to be told how
//! many there are, and what is free is not kept from those who can use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A ModelDeployment may hold so many times what nobody holds.
const FREE_MULTIPLE: usize = 2;
/// However small a pool of bytes is, it may be overdrawn by so much.
const MIN_OVERDRAFT: usize = 4 << 20;

/// A quantity that is shared.
#[derive(Debug)]
pub struct CapacityPool {
    capacity: usize,
    used: AtomicUsize,
}

impl CapacityPool {
    /// A pool of which nothing is taken.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, used: AtomicUsize::new(0) })
    }

    /// What is taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one ModelDeployment has taken of a [`CapacityPool`].
#[derive(Debug)]
pub struct PoolShare {
    pool: Arc<CapacityPool>,
    used: AtomicUsize,
}

impl PoolShare {
    /// A share of which nothing is taken.
    pub fn new(pool: &Arc<CapacityPool>) -> Arc<Self> {
        Arc::new(Self { pool: Arc::clone(pool), used: AtomicUsize::new(0) })
    }

    /// What it has taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes so much, or nothing when that is more than its part.
    fn try_take(&self, amount: usize) -> bool {
        let (own, all) = self.add(amount);
        let free = self.pool.capacity.checked_sub(all);
        // The very first unit is everybody's, however small the pool.
        let fits = free.is_some_and(|free| own <= free.saturating_mul(FREE_MULTIPLE).max(1));
        if !fits {
            self.release(amount);
        }
        fits
    }

    /// Takes so much in any case.
    fn add(&self, amount: usize) -> (usize, usize) {
        let own = self.used.fetch_add(amount, Ordering::Relaxed).saturating_add(amount);
        (own, self.pool.used.fetch_add(amount, Ordering::Relaxed).saturating_add(amount))
    }

    /// Takes so much while the pool is not overdrawn by an eighth: for what cannot be told to do
    /// with less.
    fn overdraw(&self, amount: usize) -> bool {
        let (_, all) = self.add(amount);
        let capacity = self.pool.capacity;
        let fits = all <= capacity.saturating_add((capacity / 8).max(MIN_OVERDRAFT));
        if !fits {
            self.release(amount);
        }
        fits
    }

    fn release(&self, amount: usize) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
        self.pool.used.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// Bytes taken from a [`PoolShare`] until it is dropped.
#[derive(Debug)]
pub struct ByteReservation {
    share: Arc<PoolShare>,
    bytes: usize,
}

impl ByteReservation {
    /// Nothing yet.
    pub fn new(share: &Arc<PoolShare>) -> Self {
        Self { share: Arc::clone(share), bytes: 0 }
    }

    /// Takes more, or nothing when there is not enough.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let taken = self.share.try_take(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    /// Takes more, also of an eighth more than there is.
    pub fn overdraw(&mut self, bytes: usize) -> bool {
        let taken = self.share.overdraw(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for ByteReservation {
    fn drop(&mut self) {
        self.share.release(self.bytes);
    }
}

/// The place of one request among those that are there at one time, until it is released or
/// dropped.
#[derive(Debug)]
pub struct RequestPermit {
    share: Arc<PoolShare>,
    held: AtomicBool,
}

impl RequestPermit {
    /// Takes one, if there is one.
    pub fn acquire(share: &Arc<PoolShare>) -> Option<Arc<Self>> {
        share.try_take(1).then(|| Self::new(share))
    }

    fn new(share: &Arc<PoolShare>) -> Arc<Self> {
        Arc::new(Self { share: Arc::clone(share), held: AtomicBool::new(true) })
    }

    /// Makes it another request's, unless it has been released.
    pub fn transfer(&self) -> Option<Arc<Self>> {
        self.held.swap(false, Ordering::AcqRel).then(|| Self::new(&self.share))
    }

    /// Gives it back. Again does nothing.
    pub fn release(&self) {
        if self.held.swap(false, Ordering::AcqRel) {
            self.share.release(1);
        }
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(share: &Arc<PoolShare>) -> Vec<Arc<RequestPermit>> {
        std::iter::from_fn(|| RequestPermit::acquire(share)).collect()
    }

    #[test]
    fn what_is_taken_is_given_back() {
        let pool = CapacityPool::new(90);
        let share = PoolShare::new(&pool);
        let mut first = ByteReservation::new(&share);
        assert!(first.grow(40) && !first.grow(40) && first.grow(20));
        assert_eq!((share.used(), pool.used()), (60, 60));
        assert!(first.overdraw(40) && !first.overdraw(MIN_OVERDRAFT));
        assert_eq!(pool.used(), 100);
        drop(first);
        assert_eq!((share.used(), pool.used()), (0, 0));
    }

    #[test]
    fn nobody_takes_all_and_each_gets_the_same() {
        let pool = CapacityPool::new(4096);
        let mut held = Vec::new();
        for count in 1..=8_usize {
            // A newcomer finds something free, whatever the others hold.
            let shares: Vec<_> = (0..count).map(|_| PoolShare::new(&pool)).collect();
            let (hogs, newcomer) = (&shares[..count - 1], &shares[count - 1]);
            held.extend(hogs.iter().map(fill));
            assert!(!fill(newcomer).is_empty(), "{count}");
            held.clear();
            // In the long run, as requests end and come, all have as much.
            let mut queues: Vec<Vec<Arc<RequestPermit>>> = shares.iter().map(fill).collect();
            for _ in 0..4096 {
                for (share, queue) in shares.iter().zip(&mut queues) {
                    drop(queue.pop());
                    queue.extend(RequestPermit::acquire(share));
                    queue.extend(RequestPermit::acquire(share));
                }
            }
            let ideal = 4096 * FREE_MULTIPLE / (1 + FREE_MULTIPLE * count);
            for share in &shares {
                assert!(
                    share.used().abs_diff(ideal) <= ideal / 20 + 8,
                    "{count}: {} of {ideal}",
                    share.used()
                );
            }
        }
    }

    #[test]
    fn a_place_is_released_once() {
        let share = PoolShare::new(&CapacityPool::new(1));
        let place = RequestPermit::acquire(&share).unwrap();
        assert!(RequestPermit::acquire(&share).is_none());
        let passed_on = place.transfer().unwrap();
        assert!(place.transfer().is_none());
        place.release();
        drop(place);
        assert_eq!(share.used(), 1);
        passed_on.release();
        assert_eq!(share.used(), 0);
        drop(passed_on);
        assert_eq!(share.used(), 0);
    }
}
