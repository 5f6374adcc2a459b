//! Resources that all ModelDeployments of a namespace share: permits for requests, and memory for
//! their bodies. No ModelDeployment can take all of them.
//!
//! The limit of each is a multiple of what is free (dynamic thresholds; A. K. Choudhury and E. L.
//! Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
//! Transactions on Networking 6(2), 1998): one alone gets two thirds, two with unlimited demand get
//! two fifths each, and so on; there is always something left for the next. The scheme does not
//! need their number, and it withholds no free capacity from those that can use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A ModelDeployment may hold this multiple of the free amount.
const FREE_MULTIPLE: usize = 2;
/// Minimum overdraft of a pool of bytes, however small the pool is.
const MIN_OVERDRAFT: usize = 4 << 20;

/// A shared quantity.
#[derive(Debug)]
pub struct CapacityPool {
    capacity: usize,
    used: AtomicUsize,
}

impl CapacityPool {
    /// Creates a pool of which nothing is taken.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, used: AtomicUsize::new(0) })
    }

    /// The amount taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The amount that one ModelDeployment has taken from a [`CapacityPool`].
#[derive(Debug)]
pub struct PoolShare {
    pool: Arc<CapacityPool>,
    used: AtomicUsize,
}

impl PoolShare {
    /// Creates a share of which nothing is taken.
    pub fn new(pool: &Arc<CapacityPool>) -> Arc<Self> {
        Arc::new(Self { pool: Arc::clone(pool), used: AtomicUsize::new(0) })
    }

    /// The amount taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes the amount, or nothing when it exceeds the limit of the share.
    fn try_take(&self, amount: usize) -> bool {
        let (own, all) = self.add(amount);
        let free = self.pool.capacity.checked_sub(all);
        // The first unit is always available, however small the pool is.
        let fits = free.is_some_and(|free| own <= free.saturating_mul(FREE_MULTIPLE).max(1));
        if !fits {
            self.release(amount);
        }
        fits
    }

    /// Takes the amount unconditionally.
    fn add(&self, amount: usize) -> (usize, usize) {
        let own = self.used.fetch_add(amount, Ordering::Relaxed).saturating_add(amount);
        (own, self.pool.used.fetch_add(amount, Ordering::Relaxed).saturating_add(amount))
    }

    /// Takes the amount unless the pool would be overdrawn by more than an eighth. For data that
    /// cannot be limited.
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
    /// Creates an empty reservation.
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

    /// Takes more; the pool may be overdrawn by an eighth.
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

/// The permit of one among the concurrent requests, until it is released or dropped.
#[derive(Debug)]
pub struct RequestPermit {
    share: Arc<PoolShare>,
    held: AtomicBool,
}

impl RequestPermit {
    /// Takes a permit, if one is free.
    pub fn acquire(share: &Arc<PoolShare>) -> Option<Arc<Self>> {
        share.try_take(1).then(|| Self::new(share))
    }

    fn new(share: &Arc<PoolShare>) -> Arc<Self> {
        Arc::new(Self { share: Arc::clone(share), held: AtomicBool::new(true) })
    }

    /// Transfers the permit to another request, unless it has been released.
    pub fn transfer(&self) -> Option<Arc<Self>> {
        self.held.swap(false, Ordering::AcqRel).then(|| Self::new(&self.share))
    }

    /// Releases the permit. Further calls have no effect.
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
            // A newcomer finds free capacity, whatever the others hold.
            let shares: Vec<_> = (0..count).map(|_| PoolShare::new(&pool)).collect();
            let (hogs, newcomer) = (&shares[..count - 1], &shares[count - 1]);
            held.extend(hogs.iter().map(fill));
            assert!(!fill(newcomer).is_empty(), "{count}");
            held.clear();
            // In the long run, as requests end and arrive, all have equal shares.
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
