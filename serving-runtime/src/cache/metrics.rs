//! What the caches tell of themselves.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How a request at a cache ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From this process's memory.
    HitLocal,
    /// From Redis.
    HitRedis,
    /// With another request of the same key that was under way.
    Coalesced,
    /// By work.
    Miss,
    /// Past the cache, because looking up costs more than it saves.
    Bypass,
    /// With an error, which is not kept.
    Error,
}

impl Outcome {
    const ALL: [Self; 6] = [Self::HitLocal, Self::HitRedis, Self::Coalesced, Self::Miss, Self::Bypass, Self::Error];

    const fn name(self) -> &'static str {
        match self {
            Self::HitLocal => "hit_local",
            Self::HitRedis => "hit_redis",
            Self::Coalesced => "coalesced",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Error => "error",
        }
    }

    /// As clients are told: `hit`, `miss` or `bypass`.
    pub const fn public(self) -> &'static str {
        match self {
            Self::HitLocal | Self::HitRedis | Self::Coalesced => "hit",
            Self::Miss | Self::Error => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// How Redis failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Not within the budget.
    Timeout,
    /// No connection, or it broke.
    Connection,
    /// Redis refused.
    Refused,
    /// What was stored is not what we store, or not sealed by us.
    Corrupt,
    /// There is no key to tell what is ours.
    NoKey,
    /// A write was left out, because too many were under way.
    Skipped,
}

impl Failure {
    const ALL: [Self; 6] = [Self::Timeout, Self::Connection, Self::Refused, Self::Corrupt, Self::NoKey, Self::Skipped];

    const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
            Self::NoKey => "no_key",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requests {
    cache: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cache {
    cache: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tier {
    tier: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The series of all caches.
#[derive(Debug, Clone, Default)]
pub struct CacheMetrics {
    requests: Family<Requests, Counter>,
    saved: Family<Cache, Counter<f64, AtomicU64>>,
    bytes: Family<Cache, Gauge>,
    bypassed: Family<Tier, Gauge>,
    redis_errors: Family<Reason, Counter>,
    breaker: Gauge,
}

impl CacheMetrics {
    /// Registers all, and creates the series of `caches` and of Redis so that `increase()` sees their first step.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "slipway_runtime_cache_requests",
            "Requests at a cache by how they ended",
            self.requests.clone(),
        );
        registry.register(
            "slipway_runtime_cache_saved_seconds",
            "Time that hits would have taken without the cache, less what looking up took",
            self.saved.clone(),
        );
        registry.register("slipway_runtime_cache_bytes", "Bytes kept in this process", self.bytes.clone());
        registry.register(
            "slipway_runtime_cache_bypassed",
            "1 while a tier is not looked into because that costs more than it saves",
            self.bypassed.clone(),
        );
        registry.register(
            "slipway_runtime_cache_redis_errors",
            "Times that the caches did without Redis",
            self.redis_errors.clone(),
        );
        registry.register(
            "slipway_runtime_cache_breaker_state",
            "Redis is asked (0), is tried (1), is left alone (2)",
            self.breaker.clone(),
        );
    }

    /// Creates the series of a cache.
    pub fn expect(&self, cache: &'static str) {
        for outcome in Outcome::ALL {
            let _ = self.requests.get_or_create(&Requests { cache, outcome: outcome.name() });
        }
        let _ = self.saved.get_or_create(&Cache { cache });
        for failure in Failure::ALL {
            let _ = self.redis_errors.get_or_create(&Reason { reason: failure.name() });
        }
    }

    /// Counts a request.
    pub fn count(&self, cache: &'static str, outcome: Outcome) {
        self.requests.get_or_create(&Requests { cache, outcome: outcome.name() }).inc();
    }

    /// Counts time that a hit saved.
    pub fn save(&self, cache: &'static str, seconds: f64) {
        self.saved.get_or_create(&Cache { cache }).inc_by(seconds.max(0.0));
    }

    /// Tells how much is kept.
    pub fn keep(&self, cache: &'static str, bytes: u64) {
        self.bytes.get_or_create(&Cache { cache }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Tells whether a tier is bypassed.
    pub fn bypass(&self, tier: &'static str, on: bool) {
        self.bypassed.get_or_create(&Tier { tier }).set(i64::from(on));
    }

    /// Counts a failure of Redis.
    pub fn fail(&self, failure: Failure) {
        self.redis_errors.get_or_create(&Reason { reason: failure.name() }).inc();
    }

    /// Tells where the breaker stands: 0 closed, 1 half open, 2 open.
    pub fn breaker(&self, state: i64) {
        self.breaker.set(state);
    }
}
