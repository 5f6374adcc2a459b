//! Metrics of the caches.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How a cache answered a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// From the memory of this process.
    HitLocal,
    HitRedis,
    /// By the result of a concurrent request with the same key.
    Coalesced,
    /// By running the model, or by asking the source.
    Miss,
    /// The cache was bypassed, because a look-up costs more than it saves.
    Bypass,
    /// With an error, which is not cached.
    Error,
}

impl CacheOutcome {
    const ALL: [Self; 6] =
        [Self::HitLocal, Self::HitRedis, Self::Coalesced, Self::Miss, Self::Bypass, Self::Error];

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

    /// Whether the look-up found an answer; `None` without a look-up, or without an answer.
    pub const fn found(self) -> Option<bool> {
        match self {
            Self::HitLocal | Self::HitRedis | Self::Coalesced => Some(true),
            Self::Miss => Some(false),
            Self::Bypass | Self::Error => None,
        }
    }

    /// As clients are told: `hit`, `miss` or `bypass`.
    pub const fn public_name(self) -> &'static str {
        match self {
            Self::HitLocal | Self::HitRedis | Self::Coalesced => "hit",
            Self::Miss | Self::Error => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// How Redis failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisFailure {
    /// No answer within the budget.
    Timeout,
    /// No connection, or the connection broke.
    Connection,
    /// Redis returned an error.
    Refused,
    /// The stored value has another format or is not sealed with our key.
    Corrupt,
    /// There is no key to verify entries with.
    NoKey,
    /// A write was skipped, because too many were in progress.
    Skipped,
}

impl RedisFailure {
    const ALL: [Self; 6] =
        [Self::Timeout, Self::Connection, Self::Refused, Self::Corrupt, Self::NoKey, Self::Skipped];

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
struct CacheRequestLabels {
    cache: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    cache: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    tier: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    reason: &'static str,
}

/// The metric series of all caches.
#[derive(Debug, Clone, Default)]
pub struct CacheMetrics {
    requests: Family<CacheRequestLabels, Counter>,
    saved_seconds: Family<CacheLabels, Counter<f64, AtomicU64>>,
    bytes: Family<CacheLabels, Gauge>,
    bypassed: Family<TierLabels, Gauge>,
    redis_errors: Family<FailureLabels, Counter>,
    breaker: Gauge,
}

impl CacheMetrics {
    /// Registers all metrics, and creates the series of `caches` and of Redis at 0 so that
    /// `increase()` sees their first increment.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "slipway_runtime_cache_requests",
            "Requests at a cache by how they ended",
            self.requests.clone(),
        );
        registry.register(
            "slipway_runtime_cache_saved_seconds",
            "Time that hits would have taken without the cache, less what looking up took",
            self.saved_seconds.clone(),
        );
        registry.register(
            "slipway_runtime_cache_bytes",
            "Bytes kept in this process",
            self.bytes.clone(),
        );
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

    pub fn init_series(&self, cache: &'static str) {
        for outcome in CacheOutcome::ALL {
            let _ =
                self.requests.get_or_create(&CacheRequestLabels { cache, outcome: outcome.name() });
        }
        let _ = self.saved_seconds.get_or_create(&CacheLabels { cache });
        for failure in RedisFailure::ALL {
            let _ = self.redis_errors.get_or_create(&FailureLabels { reason: failure.name() });
        }
    }

    pub fn count_request(&self, cache: &'static str, outcome: CacheOutcome) {
        self.requests.get_or_create(&CacheRequestLabels { cache, outcome: outcome.name() }).inc();
    }

    /// Adds the time that a hit saved.
    pub fn add_saved_seconds(&self, cache: &'static str, seconds: f64) {
        self.saved_seconds.get_or_create(&CacheLabels { cache }).inc_by(seconds.max(0.0));
    }

    /// Sets the size of a cache's contents.
    pub fn set_bytes(&self, cache: &'static str, bytes: u64) {
        self.bytes
            .get_or_create(&CacheLabels { cache })
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets whether a tier is bypassed.
    pub fn set_bypassed(&self, tier: &'static str, on: bool) {
        self.bypassed.get_or_create(&TierLabels { tier }).set(i64::from(on));
    }

    pub fn count_redis_error(&self, failure: RedisFailure) {
        self.redis_errors.get_or_create(&FailureLabels { reason: failure.name() }).inc();
    }

    /// Sets the state of the circuit breaker: 0 closed, 1 half open, 2 open.
    pub fn set_breaker_state(&self, state: i64) {
        self.breaker.set(state);
    }
}
