//! Caches of answers and of feature rows (by entity), in the memory of this process and in Redis.
//!
//! Rules for all caches:
//! * **Never an answer of another model**: the digest of the model's file is part of every key, and
//!   stored values contain their key.
//! * **Never an entry of an untrusted writer**: with the keys of the namespace, entries in Redis
//!   prove that pods of the ModelDeployment wrote them ([`seal`](slipway_runtime_common::seal)).
//! * **Fail open**: when Redis is slow, gone, full or corrupt, requests continue without it. A
//!   request waits for at most the budget, and after a few failures no request queries Redis until
//!   it answers again ([`breaker`]).
//! * **Errors are never cached**, nor are outputs with a NaN or an infinity.
//! * **One flight**: of several concurrent requests with the same key, one does the work
//!   ([`single_flight`]).
//! * **Bypass**: where a look-up costs more than it saves, requests bypass the cache
//!   ([`bypass_policy`]).

pub mod args;
pub mod breaker;
pub mod bypass_policy;
pub mod features;
pub mod hot_keys;
pub mod key;
pub mod local;
pub mod metrics;
pub mod redis_tier;
pub mod result;
pub mod single_flight;
pub mod source;
pub mod value;

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use slipway_runtime_common::keys::DeploymentKeys;

pub use self::args::CacheArgs;
use self::features::FeatureRowCache;
pub use self::metrics::{CacheMetrics, CacheOutcome};
use self::redis_tier::RedisTier;
use self::result::InferResultCache;

/// The header and the gRPC parameter that report how the cache was involved in an answer: `hit`,
/// `miss` or `bypass`.
pub const CACHE_HEADER: &str = slipway_contracts::headers::CACHE;

/// The caches of a process.
#[derive(Debug, Default)]
pub struct RuntimeCaches {
    redis: Option<RedisTier>,
    /// The result cache; `None` when it is disabled.
    pub results: Option<InferResultCache>,
    /// The feature cache; `None` when it is disabled.
    pub features: Option<FeatureRowCache>,
}

impl RuntimeCaches {
    /// Creates the caches of the ModelDeployment `namespace` (`<namespace>/<name>`) as configured;
    /// entries in Redis are sealed with `keys`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When an address is invalid.
    pub fn new(
        args: &CacheArgs,
        namespace: &str,
        keys: &Arc<DeploymentKeys>,
        metrics: &CacheMetrics,
    ) -> Result<Self, String> {
        let url = args.redis_url.expose_secret();
        let wanted = (args.result_cache || args.feature_cache) && !url.is_empty();
        let budget = std::time::Duration::from_millis(args.redis_budget_ms);
        let redis = wanted
            .then(|| RedisTier::new(url, budget, Arc::clone(keys), metrics.clone()))
            .transpose()?;
        let results = InferResultCache::new(args, redis.clone(), metrics);
        let features = FeatureRowCache::new(args, namespace, redis.clone(), metrics)?;
        Ok(Self { redis, results, features })
    }

    /// Connects to Redis before the first request. Waits for at most a second or two.
    pub async fn connect(&self) {
        if let Some(redis) = &self.redis {
            redis.connect().await;
        }
    }
}
