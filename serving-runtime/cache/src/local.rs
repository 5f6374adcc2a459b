//! The cache tier in the memory of this process, limited by bytes.

use std::hash::Hash;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// Estimated size of an entry besides its contents, in bytes: key, lists of the policy,
/// allocations.
const OVERHEAD: usize = 256;

#[derive(Debug, Clone)]
struct LocalEntry<V> {
    value: V,
    bytes: u32,
    ttl: Duration,
}

/// Values by key, each with its own expiry time. Rarely used entries are evicted first (TinyLFU),
/// so a scan does not displace frequently used ones.
#[derive(Debug)]
pub struct LocalTier<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> {
    cache: Cache<K, LocalEntry<V>>,
}

struct EntryExpiry;

impl<K, V> Expiry<K, LocalEntry<V>> for EntryExpiry {
    fn expire_after_create(&self, _: &K, entry: &LocalEntry<V>, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &K,
        entry: &LocalEntry<V>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> LocalTier<K, V> {
    /// Creates a tier of at most `bytes` bytes.
    pub fn new(bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, entry: &LocalEntry<V>| entry.bytes)
            .expire_after(EntryExpiry)
            .eviction_policy(EvictionPolicy::tiny_lfu())
            .build();
        Self { cache }
    }

    /// The value, if it exists and has not expired.
    pub fn get(&self, key: &K) -> Option<V> {
        self.cache.get(key).map(|entry| entry.value)
    }

    /// Stores a value of `bytes` bytes for `ttl`.
    pub fn insert(&self, key: K, value: V, bytes: usize, ttl: Duration) {
        let bytes = u32::try_from(bytes.saturating_add(OVERHEAD)).unwrap_or(u32::MAX);
        self.cache.insert(key, LocalEntry { value, bytes, ttl });
    }

    /// Bytes stored; the bookkeeping lags a little behind.
    pub fn bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    /// Runs the pending bookkeeping.
    #[cfg(test)]
    pub fn settle(&self) {
        self.cache.run_pending_tasks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_by_bytes() {
        let local = LocalTier::new(100_000);
        (0..10_000_u32).for_each(|n| local.insert(n, n, 1000, Duration::from_secs(60)));
        local.settle();
        assert!(local.bytes() <= 100_000, "{}", local.bytes());
        assert!((0..10_000).filter_map(|n| local.get(&n)).count() > 10);
        local.insert(1, 1, 200_000, Duration::from_secs(60));
        local.settle();
        assert!(local.bytes() <= 100_000, "one that is larger than all room is not kept");
    }

    #[test]
    fn an_entry_ends() {
        let local = LocalTier::new(100_000);
        local.insert(1, 1, 1, Duration::ZERO);
        local.insert(2, 2, 1, Duration::from_secs(60));
        assert_eq!((local.get(&1), local.get(&2)), (None, Some(2)));
    }
}
